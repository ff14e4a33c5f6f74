#!/bin/sh
# Runs the checks and the tests of the whole tree:
#
#	test/run.sh check	gofmt, vet, staticcheck and the conventions
#	test/run.sh		installs the peers, then all checks and all tests
#
# A stage that fails does not keep the next from running, but the run fails. The
# last lines are go test's own summary, after a table of what was left out.
set -u
cd "$(dirname "$0")/.." || exit 1

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
# Programs built for the tests are executed by other users too.
chmod 755 "$tmp"
mkdir "$tmp/bin" || exit 1
export POSTERN_TEST_BIN="$tmp/bin"

# Arguments of the report: -failed STAGE and -left-out WHAT:WHY.
set -- "${1:-all}"
what=$1
shift

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

if [ "$what" = all ]; then
	sh test/peers.sh || set -- "$@" -left-out 'programs to test against: test/peers.sh could not install them'
fi
echo 'check: gofmt'
formatted || set -- "$@" -failed gofmt
echo 'check: go vet'
go vet ./... || set -- "$@" -failed 'go vet'
echo 'check: staticcheck'
CGO_ENABLED=0 go tool -modfile=test/tools/go.mod staticcheck ./... || set -- "$@" -failed staticcheck

CGO_ENABLED=0 go build -o "$tmp/report" ./test/report || exit 1
if [ "$what" = check ]; then
	"$tmp/report" "$@" go test -json -count=1 -run '^TestConvention' ./test
	exit
fi
race=-race
if can_race; then
	export CGO_ENABLED=1
else
	race=
	export CGO_ENABLED=0
	set -- "$@" -left-out 'race detector: no C compiler'
fi
"$tmp/report" "$@" go test -json -count=1 -vet=off -timeout=10m $race ./...
