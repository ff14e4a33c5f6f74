#!/bin/sh
# Looks for known vulnerabilities in the modules and the Go that are used, as far
# as they are called:
#
#	test/vuln.sh [-n]	with -n not again for the same modules, Go and database
#
# The database is that of https://vuln.go.dev, which golang.org/x/vulndb has in
# files; it comes over the module proxy, and is asked for at most once a day.
#
# Exit status: 1 if a module has one, 2 if it could not look, with the reason as
# the last line. One in Go itself is told, and no failure: it is for whoever
# installs Go.
set -u
cd "$(dirname "$0")/.." || exit 2

cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/postern-vulndb
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM

cannot() {
	echo "$1"
	exit 2
}

# Prints the directory of the newest database, or of the last one that was had.
database() {
	if [ -z "$(find "$cache/database" -mtime -1 2>/dev/null)" ]; then
		(cd "$tmp" && GOFLAGS=-mod=mod timeout 120 go mod download -json golang.org/x/vulndb@latest) >"$tmp/download" 2>/dev/null
		found=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p' "$tmp/download")
		[ -z "$found" ] || { mkdir -p "$cache" && echo "$found" >"$cache/database"; }
	fi
	found=$(cat "$cache/database" 2>/dev/null) && [ -d "$found/data/osv" ] && echo "$found"
}

db=$(database) || cannot 'no database: the module proxy does not give golang.org/x/vulndb'
state=$(echo "$db" && go version && cat go.mod go.sum)
if [ "${1:-}" = -n ] && [ "$state" = "$(cat "$cache/passed" 2>/dev/null)" ]; then
	echo 'vuln: as before, nothing known in modules'
	exit 0
fi

go tool -modfile=test/tools/go.mod govulncheck -db "file://$db/data/osv" ./... >"$tmp/result" 2>&1
status=$?
case $status in
0 | 3) ;; # 3: there are some
*)
	tail -n 20 "$tmp/result" >&2
	cannot "govulncheck ends with status $status"
	;;
esac

# One line for each: where, which, what.
awk '
	function row() { if (id != "") printf "vuln: %s: %s, fixed in %s: %s (%s)\n", where, found, fixed == "" ? "none" : fixed, text, id }
	/^Vulnerability #/ { row(); id = $3; text = ""; where = ""; found = ""; fixed = ""; more = 0; next }
	id == "" { next }
	/^  More info:/ { more = 1 }
	/^    / && !more { sub(/^ +/, ""); text = text (text == "" ? "" : " ") $0 }
	/^  Standard library/ { where = "Go" }
	/^  Module: / { where = "module " $2 }
	/^    Found in: / && found == "" { found = $3 }
	/^    Fixed in: / && fixed == "" { fixed = $3 }
	/^Your code is affected/ { exit }
	END { row() }' "$tmp/result" >"$tmp/found"
cat "$tmp/found"
[ "$status" -eq 0 ] || [ -s "$tmp/found" ] || cannot 'the output of govulncheck is not understood'
! grep -q -v '^vuln: Go: ' "$tmp/found" || exit 1
mkdir -p "$cache" && printf '%s\n' "$state" >"$cache/passed"
echo 'vuln: nothing known in modules'
