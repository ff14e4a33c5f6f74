#!/bin/sh
# Makes what the boot test is played with, as root: the package, in bin/packages, and the Debian tree
# DIRECTORY, once; that needs some minutes.
#
#	prepare.sh DIRECTORY
#
# The exit status is 77 where that is not possible; the last line says why.
set -eu
umask 022
cd "$(dirname "$0")/../.."
tree=$1
kind=$(cksum <test/boot/prepare.sh)

cannot() {
	echo "$*"
	exit 77
}

if [ "${2:-}" != inside ]; then
	[ "$(id -u)" -eq 0 ] || cannot 'needs root'
	# What is there may have been laid there by anybody; it would be run as root.
	for name in "$tree" "$tree.lock" "$tree.log"; do
		[ ! -L "$name" ] && { [ ! -e "$name" ] || [ "$(stat -c %u "$name")" -eq 0 ]; } || cannot "$name is not root's"
	done
	exec 9>"$tree.lock"
	flock 9
	arch=$(go env GOHOSTARCH)
	CGO_ENABLED=0 go build -modfile=etc/packages/go.mod -o bin/packages/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm || cannot 'nfpm cannot be built'
	make -s build
	KINDS=deb etc/packages/build "$(make -s version)" "$arch"
	[ "$(cat "$tree/.complete" 2>/dev/null)" != "$kind" ] || exit 0
	command -v debootstrap >/dev/null || { apt-get update -q && apt-get install -qq -y --no-install-recommends debootstrap; } >/dev/null 2>&1 ||
		cannot 'debootstrap cannot be installed'
	# Mounts and processes are gone when the last process of these namespaces is.
	unshare --mount --pid true 2>/dev/null || cannot 'no namespaces'
	exec unshare --mount --pid --fork --kill-child --propagation private sh test/boot/prepare.sh "$tree" inside
fi

# From where this machine gets its own packages.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 2>/dev/null | head -n 1)
fetch() {
	"$@" >>"$tree.log" 2>&1 || { tail -n 3 "$tree.log"; cannot "$1 has failed: see $tree.log"; }
}
rm -rf --one-file-system "$tree"
mkdir "$tree"
: >"$tree.log"
fetch debootstrap --variant=minbase --include=dbus,dovecot-pop3d,haproxy,iproute2,libnet-dns-perl,mimedefang,netcat-openbsd,perl-openssl-defaults,postfix,procps,systemd,systemd-sysv \
	bookworm "$tree" "${mirror:-http://deb.debian.org/debian}"
# debootstrap may leave one that starts nothing.
[ ! -e "$tree/usr/sbin/start-stop-daemon.REAL" ] || mv "$tree/usr/sbin/start-stop-daemon.REAL" "$tree/usr/sbin/start-stop-daemon"
# What is installed in a check, which has no network: servers that take the place of Postfix, and scanners.
cp /etc/resolv.conf "$tree/etc/resolv.conf"
for packages in exim4-daemon-light opensmtpd 'clamav-daemon rspamd spamd'; do
	fetch chroot "$tree" apt-get install -qq -y --no-install-recommends --download-only $packages
done
# Packages are there for a check to start. Nobody sits at the console, and nothing is to be fetched. What is slow has not failed.
systemctl --root="$tree" --quiet disable haproxy postfix dovecot dovecot.socket mimedefang mimedefang-multiplexor
systemctl --root="$tree" --quiet mask console-getty systemd-logind systemd-networkd systemd-networkd-wait-online e2scrub_reap \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
echo force-unsafe-io >"$tree/etc/dpkg/dpkg.cfg.d/unsafe-io"
mkdir -p "$tree/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultTimeoutStartSec=10min\nDefaultTimeoutStopSec=10min\n' >"$tree/etc/systemd/system.conf.d/patience.conf"
cp "$tree/usr/share/postfix/master.cf.dist" "$tree/etc/postfix/master.cf"
printf 'compatibility_level = 3.6\nmydestination = example.org\nmyhostname = mail.example.org\ninet_protocols = ipv4\nalias_maps =\nmail_spool_directory = /var/mail\n' \
	>"$tree/etc/postfix/main.cf"
: >"$tree/etc/machine-id"
echo "$kind" >"$tree/.complete"
