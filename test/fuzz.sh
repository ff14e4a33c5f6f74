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
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' HUP INT TERM

# Go before 1.27 takes the end of the time for a failure now and then: https://go.dev/issue/75804
only_time_is_over() {
	grep -A 1 '^--- FAIL' "$log" | grep -qx '    context deadline exceeded' && ! grep -q 'Failing input' "$log" &&
		echo 'fuzz: the time is over; Go took that for a failure'
}

for file in $(grep -rl '^func Fuzz' --include='*_test.go' .); do
	for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "fuzz: $(dirname "$file") $name for $time"
		go test -run '^$' -fuzz "^$name\$" -fuzzminimizetime 1s -fuzztime "$time" "$(dirname "$file")" 2>&1 | tee "$log"
		grep -q '^ok' "$log" || only_time_is_over || found=1
	done
done
exit "$found"
