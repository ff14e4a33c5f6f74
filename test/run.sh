#!/bin/sh
# Runs the checks and the tests of the whole tree:
#
#	test/run.sh check	gofmt, vet, the types on other machines, staticcheck,
#				govulncheck, the conventions, and the unit tests
#				that need no peer, no root and little time
#	test/run.sh		installs the peers, then all checks and all tests; as root also
#				builds the package, and a Debian tree to boot with it
#	test/run.sh tests	the same without the checks
#	test/run.sh cover	all tests, how many of a package's statements they
#				run, and which: bin/cover.html
#
# The checks run beside the tests: most of them keep one processor busy at a time. One
# that fails does not keep the next from running, but the run fails. The last lines
# are go test's own summary, after a table of what was left out.
#
# PACKAGES (./...) and TESTFLAGS, such as -run or -shuffle, choose and vary what
# is run; FAILURES names a file to append a line to for each test that failed.
set -u
cd "$(dirname "$0")/.." || exit 1

# Sockets have paths of 107 bytes at most; neither make nor systemd's units take spaces.
case ${TMPDIR:=/tmp} in *[[:space:]]* | ?????????????????????????????????????????*) TMPDIR=/tmp ;; esac
export TMPDIR
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
# Programs built for the tests are executed by other users too.
umask 022
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

# Most tests wait most of the time, for a clock or a peer: there may be more packages at
# once than processors, and in each of them as many tests.
SIDE_BY_SIDE=$((2 * $(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)))

# Those that take longest begin first, for the machine to be busy to the end.
LONGEST='./test ./test/boot ./smtp-proxy ./multiplexor ./smtp-proxy/upstream ./internal/notify/hub'

what=${1:-all}
set -- # from here on the arguments of the report: -failed STAGE and -left-out WHAT:WHY
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

# stage NAME COMMAND... tells what a check has to say when it has ended. Of these lines the report knows "FAILED: NAME",
# "Note: TEXT", and the one with which they end.
stage() {
	name=$1
	shift
	"$@" >"$tmp/said" 2>&1
	status=$?
	echo "check: $name"
	cat "$tmp/said"
	[ "$status" -eq 0 ] || echo "FAILED: $name"
}

vulnerabilities() {
	shared test/vuln.sh -n
	status=$?
	[ "$status" -eq 2 ] || return "$status"
	echo 'Note: known vulnerabilities were not looked for: govulncheck could not, see above'
}

checks() {
	stage gofmt formatted
	stage 'go vet' shared go vet $PACKAGES
	# Other machines have other types and system calls. To compile for them takes minutes: see test/emulated.sh.
	stage 'types on other machines' "$tmp/types" -test linux/arm64,linux/arm,linux/386,linux/riscv64 $PACKAGES
	stage 'types on freebsd/amd64' "$tmp/types" freebsd/amd64 $(cat test/portable)
	stage staticcheck shared go tool -modfile=test/tools/go.mod staticcheck $PACKAGES
	stage 'govulncheck: known vulnerabilities in modules' vulnerabilities
	echo 'check: all have ended'
}

# covered prints how many of the statements of each package were run, by tests of any package.
covered() {
	awk '$1 != "mode:" { statements[$1] = $2; if ($3 > 0) run[$1] }
		END {
			for (block in statements) {
				package = block
				sub("/[^/]*$", "", package)
				all[package] += statements[block]
				if (block in run) covered[package] += statements[block]
			}
			for (package in all) printf "%6.1f%% of %s\n", 100 * covered[package] / all[package], package
		}' | sort -k 3
}

# tests runs them under the report, which shows what the checks say.
tests() {
	[ "$what" = check ] || sh test/peers.sh || set -- "$@" -left-out 'programs to test against: test/peers.sh could not install them'
	packages=$PACKAGES
	[ "$packages" != ./... ] || packages="$LONGEST ./..."
	set -- "$@" -packages "$(go list $packages | wc -l)" ${FAILURES:+-failures "$FAILURES"} \
		go test -json -vet=off -timeout="$LIMIT" -p="$SIDE_BY_SIDE" -parallel="$SIDE_BY_SIDE" $TESTFLAGS
	case $what in
	check)
		# What has not changed since it passed passes.
		shared "$tmp/report" "$@" -short $packages
		;;
	cover)
		mkdir -p bin || return
		"$tmp/report" "$@" -count=1 -coverpkg="$(echo $packages | tr " " ,)" -coverprofile=bin/cover.out $packages
		status=$?
		covered <bin/cover.out
		go tool cover -html=bin/cover.out -o bin/cover.html && echo 'cover: see bin/cover.html' >&2
		return "$status"
		;;
	*)
		if can_race; then
			export CGO_ENABLED=1
			# Coverage is counted by atomic additions, which order what would be a race, and take most of the time.
			"$tmp/report" "$@" -count=1 -race $packages
		else
			"$tmp/report" -left-out 'race detector: no C compiler' "$@" -count=1 -cover $packages
		fi
		;;
	esac
}

# All but the C library is the same without it, and it builds faster.
export CGO_ENABLED=0

# shared runs what compiles with the flags of make, so that nothing is compiled once for each of them.
shared() { GOFLAGS="-trimpath ${GOFLAGS:-}" "$@"; }

shared go build -o "$tmp/" ./test/report ./test/types || exit 1
# Once; the tests take what is there, and the checks what is compiled.
if [ "$what" = check ]; then
	shared go build $PACKAGES || set -- -failed build
else
	shared go build -buildvcs=false -o "$tmp/bin/" $(go list ./... | grep -v '/test\>') || set -- -failed 'build the programs'
fi
case $what in
check | all) set -- "$@" -checks ;;
esac
case $what in
check | all) checks ;;
esac | tests "$@"
