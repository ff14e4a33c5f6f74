#!/bin/sh
# Builds for other machines, and runs unit tests as they do, under qemu-user of Debian's qemu-user-static:
#
#	test/emulated.sh [ARCH...]	arm64, arm, 386, riscv64, freebsd; all by default
#
# For FreeBSD, on amd64, what test/portable names is built and nothing is run. 386 needs an amd64 kernel that runs it
# itself: Go's runtime crashes under qemu-i386.
# PACKAGES chooses which; by default those that have formats, protocols and rules, and ask
# little of the kernel, which is this machine's. -short, as an emulated processor is slow.
set -u
cd "$(dirname "$0")/.." || exit 1
PACKAGES=${PACKAGES:-./internal/percent ./internal/smtp ./internal/mxproto ./internal/workdir ./internal/config ./internal/sockspec
	./internal/netlist ./internal/stamp ./internal/notify
	./internal/notify/hub ./internal/notify/listener ./smtp-proxy/header ./multiplexor/pool ./filters/mime}
[ $# -gt 0 ] || set -- arm64 arm 386 riscv64 freebsd
export CGO_ENABLED=0
# What is emulated cannot start another program of its kind, such as the tests' guardian: see internal/testenv/guard.go.
export POSTERN_TEST_GUARD=tests
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
failed=0
for arch; do
	case $arch in
	freebsd)
		echo 'emulated: freebsd is built only'
		GOOS=freebsd GOARCH=amd64 go build -o "$tmp" $(cat test/portable) || failed=1
		continue
		;;
	arm64) qemu=qemu-aarch64-static ;;
	386) qemu=env ;;
	arm | riscv64) qemu=qemu-$arch-static ;;
	*) echo "emulated: $arch is none of arm64, arm, 386, riscv64, freebsd" >&2 && exit 64 ;;
	esac
	command -v $qemu >/dev/null || { echo "emulated: $qemu is not there: install qemu-user-static" >&2; exit 1; }
	echo "emulated: $arch"
	GOARCH=$arch go build ./... || failed=1
	if [ "$arch" = 386 ]; then
		GOARCH=386 go build -o "$tmp" ./notify-tools/notify-wait || failed=1
		"$tmp/notify-wait" --version >/dev/null 2>&1 || { echo 'emulated: 386 is built only: this kernel does not run it' && continue; }
	fi
	GOARCH=$arch go test -vet=off -short -exec $qemu $PACKAGES || failed=1
done
exit $failed
