#!/bin/sh
# Makes the Debian tree that `make boot` boots, once: debootstrap needs some minutes.
# Usage: tree.sh DIRECTORY
set -eu
tree=$1
[ ! -e "$tree/.complete" ] || exit 0
[ "$(id -u)" -eq 0 ] || { echo 'boot: making the tree needs root' >&2; exit 1; }
command -v debootstrap >/dev/null || {
	apt-get update -q >/dev/null
	apt-get install -qq -y --no-install-recommends debootstrap >/dev/null
}
rm -rf "$tree"
mkdir -p "$tree"
debootstrap --variant=minbase --include=dbus,dovecot-pop3d,haproxy,iproute2,libnet-dns-perl,mimedefang,netcat-openbsd,perl-openssl-defaults,postfix,procps,systemd,systemd-sysv \
	bookworm "$tree" http://deb.debian.org/debian >"$tree.log" || { tail -3 "$tree.log" >&2; exit 1; }
# debootstrap may leave one that starts nothing.
[ ! -e "$tree/usr/sbin/start-stop-daemon.REAL" ] || mv "$tree/usr/sbin/start-stop-daemon.REAL" "$tree/usr/sbin/start-stop-daemon"
# Servers that take the place of Postfix in a check, which has no network.
cp /etc/resolv.conf "$tree/etc/resolv.conf"
for package in exim4-daemon-light opensmtpd; do
	chroot "$tree" apt-get install -qq -y --no-install-recommends --download-only $package >>"$tree.log" || { tail -3 "$tree.log" >&2; exit 1; }
done
# Packages are there for a check to start. Nobody sits at the console, and nothing is to be fetched.
systemctl --root="$tree" --quiet disable haproxy postfix dovecot dovecot.socket mimedefang mimedefang-multiplexor
systemctl --root="$tree" --quiet mask console-getty systemd-logind systemd-networkd systemd-networkd-wait-online e2scrub_reap \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
cp "$tree/usr/share/postfix/master.cf.dist" "$tree/etc/postfix/master.cf"
printf 'compatibility_level = 3.6\nmydestination = example.org\nmyhostname = mail.example.org\ninet_protocols = ipv4\nalias_maps =\nmail_spool_directory = /var/mail\n' \
	>"$tree/etc/postfix/main.cf"
: >"$tree/etc/machine-id"
: >"$tree/.complete"
