#!/bin/sh
# Runs unit tests as other machines do, under qemu-user of Debian's qemu-user-static:
#
#	test/emulated.sh [ARCH...]	arm64, arm, 386, riscv64; all by default
#
# PACKAGES chooses which; by default those that have formats, protocols and rules, and ask
# little of the kernel, which is this machine's. -short, as an emulated processor is slow.
set -u
cd "$(dirname "$0")/.." || exit 1
PACKAGES=${PACKAGES:-./internal/percent ./internal/smtp ./internal/mxproto ./internal/workdir ./internal/config ./internal/sockspec
	./internal/netlist ./internal/stamp ./internal/notify
	./internal/notify/hub ./internal/notify/listener ./smtp-proxy/header ./multiplexor/pool ./filters/mime}
[ $# -gt 0 ] || set -- arm64 arm 386 riscv64
failed=0
for arch; do
	case $arch in
	arm64) qemu=qemu-aarch64-static ;;
	386) qemu=qemu-i386-static ;;
	arm | riscv64) qemu=qemu-$arch-static ;;
	*) echo "emulated: $arch is none of arm64, arm, 386, riscv64" >&2 && exit 64 ;;
	esac
	command -v $qemu >/dev/null || { echo "emulated: $qemu is not there: install qemu-user-static" >&2; exit 1; }
	echo "emulated: $arch"
	GOARCH=$arch CGO_ENABLED=0 go test -vet=off -short -exec $qemu $PACKAGES || failed=1
done
exit $failed
