#!/bin/sh
# Spends a time on the tests that find more the longer they run: half of it on
# rounds of those with chaos, load and chance in them, the other half on fuzzing.
#
#	test/soak.sh [TIME]	such as 90s, 30m or 2h; 30m by default
#
# It stops at the first round that fails. What fuzzing finds is left in
# testdata/fuzz, to be committed.
set -u
cd "$(dirname "$0")/.." || exit 1

# Package, and its tests, as for -run.
ROUNDS='
	./internal/notify/hub	Churn|ManyListeners|SlowListenerKeeps|OtherConnections
	./internal/privdrop	NoWayBack
	./internal/stamp	SweepAgainstLogin
	./multiplexor		RealSoak|WRK_11
	./smtp-proxy		CMD_16|UnfinishedHeaders|Invariants|NothingIsLeft|ReplyIsWhole|HostileTexts|RES_11
	./smtp-proxy/upstream	Chaos
	./test			^TestChaos|LoadLeavesNothing|RES_70|StreamsInConstant
'

time=${1:-30m}
case $time in
*[!0-9smh]* | *[smh]?* | [smh] | '')
	echo "soak: $time is no time, such as 90s, 30m or 2h" >&2
	exit 64
	;;
*h) seconds=$((${time%h} * 3600)) ;;
*m) seconds=$((${time%m} * 60)) ;;
*) seconds=${time%s} ;;
esac

# Sockets have paths of 107 bytes at most; neither make nor systemd's units take spaces.
case ${TMPDIR:=/tmp} in *[[:space:]]* | ?????????????????????????????????????????*) TMPDIR=/tmp ;; esac
export TMPDIR
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
umask 022
chmod 755 "$tmp"
mkdir "$tmp/bin" || exit 1
export POSTERN_TEST_SOAK=yes POSTERN_TEST_BIN="$tmp/bin" GORACE="${GORACE:-atexit_sleep_ms=20}"

race=-race
echo 'int main(void) { return 0; }' | "$(go env CC)" -x c -o "$tmp/cc" - 2>/dev/null || {
	race=
	export CGO_ENABLED=0
	echo 'soak: no C compiler: without the race detector'
}

began=$(date +%s)
half=$((began + seconds / 2))
round=0
while [ "$round" -eq 0 ] || [ "$(date +%s)" -lt "$half" ]; do
	round=$((round + 1))
	echo "soak: round $round, after $(($(date +%s) - began)) s of $seconds"
	echo "$ROUNDS" | while read -r package tests; do
		[ -z "$package" ] || go test $race -vet=off -count=1 -timeout=30m -run "$tests" "$package" || exit 1
	done >"$tmp/round" 2>&1
	status=$?
	cat "$tmp/round"
	if grep 'no tests to run' "$tmp/round"; then
		echo 'soak: the list of tests is out of date'
		exit 1
	fi
	[ "$status" -eq 0 ] || exit 1
done

# What is left goes to the fuzz tests in equal parts, and at least a second each.
tests=$(grep -rh '^func Fuzz' --include='*_test.go' . | wc -l)
each=$(((began + seconds - $(date +%s)) / tests))
[ "$each" -ge 1 ] || each=1
test/fuzz.sh "${each}s" || exit 1
echo "soak: $round rounds and $tests fuzz tests of $each s each, without a failure, in $(($(date +%s) - began)) s"
