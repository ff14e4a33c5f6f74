#!/bin/sh
# Runs every fuzz test of the tree for a while, one after the other:
#
#	test/fuzz.sh [TIME]	TIME as for go test -fuzztime, default 1m
#
# What one finds is left in testdata/fuzz beside it, to be committed.
set -u
cd "$(dirname "$0")/.." || exit 1
time=${1:-1m}
found=0
for file in $(grep -rl '^func Fuzz' --include='*_test.go' .); do
	for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "fuzz: $(dirname "$file") $name for $time"
		go test -run '^$' -fuzz "^$name\$" -fuzzminimizetime 1s -fuzztime "$time" "$(dirname "$file")" || found=1
	done
done
exit "$found"
