#!/bin/sh
# Runs the tests on a bare machine: a Debian that has Go and make, and nothing
# else, in a directory of its own. As root, with debootstrap:
#
#	test/bare.sh [-k DIR] [-m COMMAND] [RUN]...
#
# The runs, by default all of them in this order:
#
#	without-cc	as an ordinary user, without a C compiler
#	user		as an ordinary user
#	root		as root, which installs the peers
#
# Each runs COMMAND, `make test` by default, in a copy of HEAD. With -k the
# directory is used again and kept; a run there does not take away what an
# earlier one installed. SUITE (bookworm) and MIRROR (as this machine's apt has
# it) say what is installed. A run that fails fails the whole.
set -u
umask 022
cd "$(dirname "$0")/.." || exit 1

usage() {
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 64
}

keep=
command='make test'
while getopts k:m: option; do
	case $option in
	k) keep=$OPTARG ;;
	m) command=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- without-cc user root
for run in "$@"; do
	case $run in
	without-cc | user | root) ;;
	*) usage ;;
	esac
done

if [ "${BARE_INSIDE:-}" != yes ]; then
	[ "$(id -u)" -eq 0 ] || { echo 'bare: not root' >&2; exit 77; }
	for program in debootstrap unshare git go; do
		command -v "$program" >/dev/null || { echo "bare: no $program" >&2; exit 77; }
	done
	# Mounts and processes are gone when the last process of these namespaces is.
	BARE_INSIDE=yes exec unshare --mount --pid --fork --kill-child --propagation private "$0" ${keep:+-k "$keep"} -m "$command" "$@"
fi

SUITE=${SUITE:-bookworm}
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | head -n 1)}
MIRROR=${MIRROR:-http://deb.debian.org/debian}

if [ -n "$keep" ]; then
	mkdir -p "$keep" && dir=$(cd "$keep" && pwd) || exit 1
else
	dir=$(mktemp -d /var/tmp/bare.XXXXXX) || exit 1
	trap 'unmount; rm -rf --one-file-system "$dir"' EXIT
	trap 'exit 130' HUP INT TERM
fi
# A root that is a mount point, as a machine's is, lets what runs in it have mounts of its own.
chmod 755 "$dir" && mount --bind "$dir" "$dir" || exit 1

# The mounts are in a namespace of our own, yet a directory is removed only when
# nothing is mounted in it, of this machine or by the tests.
unmount() {
	umount -R -l "$dir" 2>/dev/null
}

# inside HOME VARIABLE=VALUE... COMMAND...
inside() {
	home=$1
	shift
	chroot "$dir" /usr/bin/env -i HOME="$home" TERM="${TERM:-dumb}" LANG=C.UTF-8 \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

system() {
	inside /root DEBIAN_FRONTEND=noninteractive "$@"
}

install_system() {
	[ -e "$dir/etc/bare" ] && return
	echo "bare: installing $SUITE from $MIRROR"
	debootstrap --variant=minbase --include=ca-certificates,make "$SUITE" "$dir" "$MIRROR" >"$dir.log" 2>&1 || {
		cat "$dir.log" >&2
		return 1
	}
	rm -f "$dir.log"
	# Packages come from where this machine gets its own.
	rm -rf "$dir/etc/apt/sources.list" "$dir/etc/apt/sources.list.d"
	cp -a /etc/apt/sources.list.d "$dir/etc/apt/" 2>/dev/null
	cp -a /etc/apt/sources.list "$dir/etc/apt/" 2>/dev/null
	cp -a /etc/apt/apt.conf.d/. "$dir/etc/apt/apt.conf.d/"
	cp -a /usr/share/keyrings/. "$dir/usr/share/keyrings/"
	# What a proxy on the way signs with is trusted as it is here.
	cp -a /usr/local/share/ca-certificates/. "$dir/usr/local/share/ca-certificates/" 2>/dev/null
	cp /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/" 2>/dev/null
	system useradd -m tester && touch "$dir/etc/bare"
}

mount_system() {
	cp /etc/resolv.conf /etc/hosts "$dir/etc/" &&
		mkdir -p "$dir/usr/local/go" "$dir/dev" &&
		mount -t proc proc "$dir/proc" &&
		mount -t sysfs sysfs "$dir/sys" &&
		mount -t cgroup2 cgroup2 "$dir/sys/fs/cgroup" &&
		mount -t tmpfs -o mode=755 tmpfs "$dir/dev" &&
		mkdir "$dir/dev/pts" "$dir/dev/shm" &&
		mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$dir/dev/pts" &&
		mount -t tmpfs -o mode=1777 tmpfs "$dir/dev/shm" &&
		mount --bind -o ro "$(go env GOROOT)" "$dir/usr/local/go" || return 1
	# Devices of our own: what is done to them does nothing to this machine.
	for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
		set -- $device
		mknod -m 666 "$dir/dev/$1" c "$2" "$3" || return 1
	done
	ln -s pts/ptmx "$dir/dev/ptmx" && ln -s /proc/self/fd "$dir/dev/fd" &&
		ln -s fd/0 "$dir/dev/stdin" && ln -s fd/1 "$dir/dev/stdout" && ln -s fd/2 "$dir/dev/stderr"
}

# HEAD, as a clone has it, in the home of the user.
copy_tree() {
	rm -rf --one-file-system "$dir$at/postern"
	mkdir -p "$dir$at/postern" &&
		git -c safe.directory='*' archive HEAD | tar -x -C "$dir$at/postern" || return 1
	[ "$user" = root ] || system chown -R "$user:" "$at/postern"
}

has_cc() { system sh -c 'command -v gcc >/dev/null || command -v cc >/dev/null'; }

run_tests() {
	case $1 in
	root) user=root at=/root ;;
	*) user=tester at=/home/tester ;;
	esac
	if [ "$1" = without-cc ]; then
		! has_cc || { echo 'bare: there is a C compiler from an earlier run'; return 1; }
	elif ! has_cc; then
		echo 'bare: installing gcc'
		{ system apt-get update -q && system apt-get install -qq -y --no-install-recommends gcc libc6-dev; } >"$dir/var/log/bare" 2>&1 || {
			cat "$dir/var/log/bare" >&2
			return 1
		}
	fi
	copy_tree || return 1
	echo "bare: $1: $command, as $user of $(sed -n 's/^PRETTY_NAME=//p' "$dir/etc/os-release")"
	# Settings of Go, its module proxy first of all, are those of this machine.
	settings=$(env | sed -n '/^\(GO[A-Z]*\|[A-Za-z]*_proxy\|[A-Z]*_PROXY\)=[^ ]*$/p' | sed '/^GO\(ROOT\|PATH\|MODCACHE\|CACHE\|BIN\)=/d')
	inside "$at" $settings ${CI:+CI="$CI"} setpriv --reuid "$user" --regid "$user" --init-groups sh -c "cd ~/postern && $command" </dev/null
}

install_system && mount_system || exit 1
status=0
outcome=
for run in "$@"; do
	began=$(date +%s)
	if run_tests "$run"; then word=passed; else word=FAILED status=1; fi
	outcome="$outcome$(printf '  %-12s%s after %d s' "$run" "$word" $(($(date +%s) - began)))
"
done
printf '\nbare machine, %s at %s:\n%s' "$command" "$(git -c safe.directory='*' rev-parse --short HEAD)" "$outcome"
exit "$status"
