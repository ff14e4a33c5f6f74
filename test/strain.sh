#!/bin/sh
# Runs the tests N times on a machine that has other things to do, and prints a
# table of those that failed in some runs:
#
#	test/strain.sh [-s STRAINS] [-p PACKAGES] [-t TESTFLAGS] [-o DIR] [N]
#
# The runs take turns among the STRAINS, by default all of them but the last:
#
#	quiet	nothing else
#	busy	four processes that do nothing but count
#	disk	processes that write and sync files where the tests have theirs
#	one	GOMAXPROCS=1, for the tests and the programs they start
#	shuffle	tests in random order (the seed is in the run's output)
#	slow	a tenth of a processor for each package (root, control groups)
#
# PACKAGES (./...) and TESTFLAGS, such as '-run TestA', choose what is run. The
# output of each run is kept in DIR. N is 10 by default. The exit status is 1 if
# any run failed.
set -u
cd "$(dirname "$0")/.." || exit 1

usage() {
	sed -n '2,/^# any run/s/^# \{0,1\}//p' "$0" >&2
	exit 64
}

strains='quiet busy disk one shuffle'
packages=./...
flags=
dir=
while getopts s:p:t:o: option; do
	case $option in
	s) strains=$(echo "$OPTARG" | tr , ' ') ;;
	p) packages=$OPTARG ;;
	t) flags=$OPTARG ;;
	o) dir=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
runs=${1:-10}
case $runs in
'' | *[!0-9]* | 0*) usage ;;
esac
[ $# -le 1 ] || usage
for strain in $strains; do
	case $strain in
	quiet | busy | disk | one | shuffle | slow) ;;
	*) usage ;;
	esac
done
if [ -n "$dir" ]; then
	mkdir -p "$dir" || exit 1
else
	dir=$(mktemp -d) || exit 1
fi
dir=$(cd "$dir" && pwd) || exit 1

load=
trap relieve EXIT
trap 'exit 130' HUP INT TERM

# The processes of the load, each of which is a shell of ours and its command.
relieve() {
	for pid in $load; do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	load=
	rm -rf "$dir/load"
}

count() { while :; do :; done; }

write() {
	while mkdir -p "$dir/load"; do
		dd if=/dev/zero of="$dir/load/$1" bs=1M count=64 conv=fsync 2>/dev/null
		rm -f "$dir/load/$1"
	done
}

# burden WHAT starts the load of a strain.
burden() {
	case $1 in
	busy) for i in 1 2 3 4; do count & load="$load $!"; done ;;
	disk) for i in 1 2; do write "$i" & load="$load $!"; done ;;
	esac
}

# slowly is a program for go test -exec, which runs the tests of a package in a group of their own.
slowly() {
	if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
		echo +cpu >/sys/fs/cgroup/cgroup.subtree_control || exit 1
		top=/sys/fs/cgroup quota='echo 10000 100000 >cpu.max'
	else
		top=/sys/fs/cgroup/cpu quota='echo 10000 >cpu.cfs_quota_us'
	fi
	cat >"$dir/slowly" <<-END
		#!/bin/sh
		group=$top/postern-strain-\$\$
		(mkdir "\$group" && cd "\$group" && $quota && echo \$\$ >cgroup.procs) || exit 1
		"\$@"
		status=\$?
		echo \$\$ >$top/cgroup.procs
		rmdir "\$group"
		exit \$status
	END
	chmod +x "$dir/slowly"
}

# run NUMBER STRAIN
run() {
	variables=
	more=$flags
	case $2 in
	one) variables=GOMAXPROCS=1 more="-p=2 $more" ;; # as many packages at a time as else
	shuffle) more="-shuffle=on $more" ;;
	slow) slowly && more="-exec=$dir/slowly $more" ;;
	esac
	burden "$2"
	env $variables PACKAGES="$packages" TESTFLAGS="$more" FAILURES="$dir/$1.$2.failures" \
		test/run.sh tests >"$dir/$1.$2.log" 2>&1 </dev/null
	status=$?
	relieve
	return "$status"
}

head=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || head=$head+changes
echo "strain: $runs runs of $packages at $head; their output is in $dir"
failed=0
number=0
while [ "$number" -lt "$runs" ]; do
	for strain in $strains; do
		[ "$number" -lt "$runs" ] || break
		number=$((number + 1))
		began=$(date +%s)
		if run "$number" "$strain"; then
			word=passed
		else
			word=FAILED
			failed=$((failed + 1))
			# A run that ended before any test could fail is a failure of its own.
			[ -s "$dir/$number.$strain.failures" ] || echo '(the run itself)' >"$dir/$number.$strain.failures"
		fi
		printf 'strain: run %d of %d, %s: %s after %d s\n' "$number" "$runs" "$strain" "$word" $(($(date +%s) - began))
	done
done

printf '\n%d of %d runs failed (%s), at %s.\n' "$failed" "$runs" "$strains" "$head"
[ "$failed" -gt 0 ] || exit 0
echo
for file in "$dir"/*.failures; do
	strain=${file%.failures}
	sed "s/\$/|${strain##*.}/" "$file" | sort -u
done | sort | awk -F'|' -v runs="$runs" -v head="$head" '
	function row() { if (name != "") printf "%-70s  %2d of %d  %-24s  %s\n", name, n, runs, under, head }
	BEGIN { printf "%-70s  %-*s  %-24s  %s\n", "test", length(runs) + 6, "failed", "under", "head" }
	$1 != name { row(); name = $1; n = 0; under = ""; split("", seen) }
	{ n++; if (!($2 in seen)) { seen[$2]; under = under (under == "" ? "" : " ") $2 } }
	END { row() }'
exit 1
