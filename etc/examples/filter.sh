#!/bin/sh
# A filter worker in the shell, as postern-filter(7) describes them: refuses recipients
# called "nobody" and messages about lotteries, and adds a field to the others.
# A multiplexor starts it: worker /usr/local/libexec/filter.sh

# encode TEXT prints TEXT as a word of an answer or of RESULTS.
encode() {
	printf %s "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' %
}

# decode WORD sets $text to the bytes that WORD stands for; a NUL is left out.
decode() {
	text='' rest=$1
	while :; do
		before=${rest%%%[0-9A-Fa-f][0-9A-Fa-f]*}
		[ "$before" != "$rest" ] || break
		hex=${rest#"$before"%}
		rest=${hex#??}
		byte=$(printf "\\$(printf %03o "0x${hex%"$rest"}").") # the dot keeps a line feed
		text=$text$before${byte%.}
	done
	text=$text$rest
}

# scan DIR judges a message. What it returns is whether the verdict could be written.
scan() {
	client=unknown verdict=
	while IFS= read -r line; do
		decode "${line#?}"
		case $line in
		I*) client=$text ;;
		U*[Ll][Oo][Tt][Tt][Ee][Rr][Yy]*) verdict="B554 5.7.1 $(encode "no thanks: $text")" ;;
		F) break ;;
		esac
	done <"$1/COMMANDS" || return
	[ -n "$verdict" ] || verdict="HX-Seen $(encode "by a filter, 100%, from $client")"
	printf '%s\nF\n' "$verdict" >>"$1/RESULTS"
}

while read -r verb first second rest; do
	case $verb in
	[Pp][Ii][Nn][Gg]) echo PONG ;;
	[Ss][Cc][Aa][Nn])
		decode "$second"
		if scan "$text"; then echo ok; else echo 'error: cannot scan'; fi
		;;
	[Rr][Ee][Cc][Ii][Pp][Oo][Kk])
		decode "$first"
		case $text in
		'<nobody@'*) echo "ok 0 $(encode "no such user: $text") 550 5.1.1" ;;
		*) echo 'ok 1' ;;
		esac
		;;
	[Rr][Ee][Ll][Aa][Yy][Oo][Kk] | [Hh][Ee][Ll][Oo][Oo][Kk] | [Ss][Ee][Nn][Dd][Ee][Rr][Oo][Kk]) echo 'ok 1' ;;
	*) echo 'error: Unknown command' ;;
	esac
done
