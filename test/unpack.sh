#!/bin/sh
# Unpacks Debian packages that cannot be installed beside the others, such as a
# second mail server, each with the libraries that it lacks here, into a
# directory of its own:
#
#	test/unpack.sh PACKAGE...
#
# The directories are kept in $XDG_CACHE_HOME/postern-peers (~/.cache), where the
# tests find them. Nothing of a package is run.
set -u

cache=${XDG_CACHE_HOME:-$HOME/.cache}/postern-peers
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

# The package itself, and what an installation of it would bring.
brings() {
	echo "$1"
	apt-get -s install --no-install-recommends "$1" 2>/dev/null | sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -Fxv "$1"
}

fetch() {
	(cd "$tmp/debs" && apt-get -qq download $(brings "$1")) >"$tmp/log" 2>&1
}

unpack() {
	mkdir "$tmp/debs" "$tmp/root" || return 1
	# Lists may be missing or old.
	fetch "$1" || { apt-get update -q >/dev/null 2>&1; fetch "$1"; } || return 1
	for deb in "$tmp"/debs/*.deb; do
		dpkg -x "$deb" "$tmp/root" || return 1
	done
	rm -rf "$tmp/debs"
	# Whole or not at all: another run may be doing the same.
	mv -T "$tmp/root" "$cache/$1" 2>>"$tmp/log" || [ -d "$cache/$1" ]
}

mkdir -p "$cache" || exit 1
status=0
for package in "$@"; do
	[ -d "$cache/$package" ] && continue
	echo "peers: unpacking: $package"
	tmp=$(mktemp -d "$cache/.new.XXXXXX") || exit 1
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' HUP INT TERM
	chmod 755 "$tmp"
	unpack "$package" || {
		status=1
		cat "$tmp/log" >&2
		echo "peers: could not unpack: $package" >&2
	}
	rm -rf "$tmp"
done
exit "$status"
