#!/bin/sh
# Runs the checks and the tests of the whole tree:
#
#	test/run.sh check	gofmt, vet, the types on other machines, staticcheck,
#				govulncheck, the conventions, and the unit tests
#				that need no peer, no root and little time
#	test/run.sh		installs the peers, then all checks and all tests
#	test/run.sh tests	the same without the checks
#	test/run.sh cover	all tests, and which statements they run: bin/cover.html
#
# A stage that fails does not keep the next from running, but the run fails. The
# last lines are go test's own summary, after a table of what was left out.
#
# PACKAGES (./...) and TESTFLAGS, such as -run or -shuffle, choose and vary what
# is run; FAILURES names a file to append a line to for each test that failed.
set -u
cd "$(dirname "$0")/.." || exit 1

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
# Programs built for the tests are executed by other users too.
chmod 755 "$tmp"
mkdir "$tmp/bin" || exit 1
export POSTERN_TEST_BIN="$tmp/bin"
# A process with the race detector sleeps a second before it ends, in case a race
# is just going on. The tests start hundreds of them.
export GORACE="${GORACE:-atexit_sleep_ms=20}"

# Far above what the slowest machine needs: what hangs is found by the tests
# themselves, which say what they wait for.
LIMIT=30m
PACKAGES=${PACKAGES:-./...}
TESTFLAGS=${TESTFLAGS:-}

# Most tests wait most of the time, for a clock or a peer: there may be more at once
# than processors, in each of the packages of which there are as many at once.
SIDE_BY_SIDE=$((2 * $(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)))

# Those that take longest begin first, for the machine to be busy to the end.
LONGEST='./test ./smtp-proxy ./multiplexor ./smtp-proxy/upstream ./internal/notify/hub'

# Arguments of the report: -failed STAGE, -left-out WHAT:WHY and -note TEXT.
set -- "${1:-all}"
what=$1
shift
case $what in
check | all | tests | cover) ;;
*)
	echo "run: $what is none of check, tests, cover" >&2
	exit 64
	;;
esac

formatted() {
	unformatted=$(gofmt -l .) && [ -z "$unformatted" ] || {
		printf 'gofmt would change:\n%s\n' "$unformatted"
		return 1
	}
}

# The race detector is C code, so programs are built without cgo but tests with.
can_race() {
	echo 'int main(void) { return 0; }' | "$(go env CC)" -x c -o "$tmp/cc" - 2>/dev/null
}

# All but the C library is the same without it, and it builds faster.
export CGO_ENABLED=0
if [ "$what" != check ]; then
	sh test/peers.sh || set -- "$@" -left-out 'programs to test against: test/peers.sh could not install them'
fi
case $what in
check | all)
	echo 'check: gofmt'
	formatted || set -- "$@" -failed gofmt
	echo 'check: go vet'
	go vet $PACKAGES || set -- "$@" -failed 'go vet'
	# Other machines have other types and system calls. To compile for them takes minutes: see test/emulated.sh.
	go build -o "$tmp/types" ./test/types || exit 1
	for machine in linux/arm64 linux/arm linux/386 linux/riscv64; do
		echo "check: types on $machine"
		"$tmp/types" -test "$machine" $PACKAGES || set -- "$@" -failed "types on $machine"
	done
	echo 'check: types on freebsd/amd64'
	"$tmp/types" freebsd/amd64 $(cat test/portable) || set -- "$@" -failed 'types on freebsd/amd64'
	echo 'check: staticcheck'
	go tool -modfile=test/tools/go.mod staticcheck $PACKAGES || set -- "$@" -failed staticcheck
	echo 'check: govulncheck'
	test/vuln.sh -n >"$tmp/vuln"
	status=$?
	cat "$tmp/vuln"
	case $status in
	1) set -- "$@" -failed 'govulncheck: known vulnerabilities in modules' ;;
	2) set -- "$@" -note "known vulnerabilities were not looked for: $(tail -n 1 "$tmp/vuln")" ;;
	esac
	;;
esac

go build -o "$tmp/report" ./test/report || exit 1
if [ "$what" != check ]; then
	# Once; the tests take what is there.
	go build -trimpath -buildvcs=false -o "$tmp/bin/" $(go list ./... | grep -v '/test\>') || set -- "$@" -failed 'build the programs'
fi
[ "$PACKAGES" != ./... ] || PACKAGES="$LONGEST ./..."
set -- "$@" -packages "$(go list $PACKAGES | wc -l)" ${FAILURES:+-failures "$FAILURES"} \
	go test -json -vet=off -timeout="$LIMIT" -parallel="$SIDE_BY_SIDE" $TESTFLAGS
case $what in
check)
	# What has not changed since it passed passes.
	"$tmp/report" "$@" -short $PACKAGES
	;;
cover)
	mkdir -p bin || exit 1
	"$tmp/report" "$@" -count=1 -coverpkg="$(echo $PACKAGES | tr " " ,)" -coverprofile=bin/cover.out $PACKAGES
	status=$?
	go tool cover -html=bin/cover.out -o bin/cover.html && echo 'cover: see bin/cover.html' >&2
	exit "$status"
	;;
*)
	if can_race; then
		export CGO_ENABLED=1
		"$tmp/report" "$@" -count=1 -race -cover $PACKAGES
	else
		"$tmp/report" -left-out 'race detector: no C compiler' "$@" -count=1 -cover $PACKAGES
	fi
	;;
esac
