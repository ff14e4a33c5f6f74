#!/bin/sh
# Tries the .deb in bin/packages that is for this machine: lintian has nothing to say
# but what is overridden, and it is installed, upgraded, removed and purged in a copy
# of this system that lasts as long as the test. Nothing outside of it is touched.
# Needs root, and a Debian with dpkg and overlayfs; lintian if it is there.
set -u
cd "$(dirname "$0")/.." || exit 1
deb=$(ls bin/packages/postern_*_"$(dpkg --print-architecture)".deb) || exit 1

if [ "${1:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || { echo 'packages: not tried: not root' >&2; exit 0; }
	if command -v lintian >/dev/null; then
		lintian --allow-root --fail-on error,warning "$deb" || exit 1
	else
		echo 'packages: lintian is not there' >&2
	fi
	exec unshare -m -n "$0" inside
fi

fail() {
	echo "packages: $*" >&2
	exit 1
}
layer=$(mktemp -d) || exit 1
# The mounts end with this process and its name space.
mount -t tmpfs tmpfs "$layer" && mkdir "$layer/upper" "$layer/work" "$layer/root" &&
	mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root" || fail 'no overlay'
trap 'umount -l "$layer"; rmdir "$layer"' EXIT
root=$layer/root
mount -t tmpfs tmpfs "$root/run" && mount --bind /dev "$root/dev" && mount -t proc proc "$root/proc" || fail 'no mounts'
cp "$deb" "$root/run/postern.deb" || exit 1
chrooted() { chroot "$root" "$@"; }

chrooted dpkg -i --force-depends /run/postern.deb >"$root/run/log" 2>&1 || { cat "$root/run/log"; fail 'does not install'; }
chrooted id -u postern-filter >/dev/null || fail 'no account for workers'
[ "$(chrooted stat -c '%a %U %G' /var/spool/postern)" = '2750 postern postern-filter' ] || fail 'spool directory'
for program in smtp-proxy multiplexor pop3-stamp postern-board notify-cat mx-ctrl; do
	chrooted "$program" --version || fail "$program does not run"
done
for script in bash-completion/completions/pop3-stamp zsh/vendor-completions/_pop3-stamp fish/vendor_completions.d/pop3-stamp.fish; do
	[ -s "$root/usr/share/$script" ] || fail "no $script"
done
chrooted man -w smtp-proxy >/dev/null || fail 'no manual page'

# Settings that were changed are kept, at an upgrade and at a removal.
echo '# mine' >>"$root/etc/postern/smtp-proxy.conf"
chrooted dpkg -i --force-depends --force-confold /run/postern.deb >/dev/null 2>&1 || fail 'does not upgrade'
grep -q '^# mine' "$root/etc/postern/smtp-proxy.conf" || fail 'settings are lost at an upgrade'
chrooted dpkg -r --force-depends postern >/dev/null || fail 'is not removed'
[ ! -e "$root/usr/sbin/smtp-proxy" ] || fail 'smtp-proxy is left after removal'
grep -q '^# mine' "$root/etc/postern/smtp-proxy.conf" || fail 'settings are lost at removal'
chrooted dpkg -P --force-depends postern >/dev/null || fail 'is not purged'
left=$(cd "$root" && find etc usr var/spool var/lib/postern* -path '*postern*' 2>/dev/null | grep -v '^var/lib/dpkg/')
[ -z "$left" ] || fail "left after purge: $left"
echo 'packages: installed, upgraded, removed and purged'
