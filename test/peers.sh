#!/bin/sh
# Installs the programs that the tests run Postern against: the original
# MIMEDefang, mail servers behind it, clients before it, and the tools that the
# tests use:
#
#	test/peers.sh		for the tests
#	test/peers.sh bench	for the benchmark, which compares with other proxies
#
# On Debian (or one of its children) as root only; everywhere else it says so
# and succeeds, and the tests say what they had to leave out.
#
# No service of a package is started: the tests start their own, on loopback
# with settings of their own. When everything is there already, nothing is done.
set -u
umask 022

PACKAGES='
	bash ca-certificates chromium clamav-daemon curl dovecot-lmtpd dovecot-pop3d fish gcc haproxy iproute2 libc6-dev libnet-dns-perl
	libnet-ssleay-perl make mandoc mimedefang msmtp netcat-openbsd nftables openssl perl postfix procps prometheus
	fetchmail mpop
	python3 python3-dkim redis-server rspamd spamd swaks systemd util-linux zsh'

# Mail servers that exclude Postfix as packages, or want one of their own.
UNPACKED='courier-pop cyrus-pop3d exim4-daemon-light mailutils-pop3d opensmtpd'

# Some releases have it: the tests of the store run with both.
if command -v apt-cache >/dev/null && apt-cache show valkey-server >/dev/null 2>&1; then
	PACKAGES="$PACKAGES valkey-server"
else
	echo 'peers: no valkey-server in this release: the store is tested with redis-server alone'
fi

if [ "${1:-}" = bench ]; then
	PACKAGES='dovecot-pop3d gcc haproxy libc6-dev libnginx-mod-mail make mimedefang nginx perdition postfix proxsmtp redis-server'
	UNPACKED=
fi

POLICY=/usr/sbin/policy-rc.d

missing() {
	for package in $PACKAGES; do
		state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) || state=
		case $state in
		ii*) ;;
		*) printf ' %s' "$package" ;;
		esac
	done
}

# Services are kept from starting by policy-rc.d, which is put back afterwards
# as it was, also when we are interrupted.
forbid_services() {
	saved=$(mktemp "$POLICY.XXXXXX") || exit 1
	if [ -e "$POLICY" ]; then
		cp -p "$POLICY" "$saved" || exit 1
	else
		rm -f "$saved"
	fi
	trap allow_services EXIT
	trap 'exit 130' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$POLICY.new" && chmod 755 "$POLICY.new" && mv "$POLICY.new" "$POLICY" || exit 1
}

allow_services() {
	if [ -e "$saved" ]; then
		mv "$saved" "$POLICY"
	else
		rm -f "$POLICY"
	fi
}

install() {
	# Postfix asks at installation what to be; it gets settings from the tests.
	echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
	apt-get update -q >/dev/null && apt-get -o Dpkg::Options::=--force-unsafe-io install -qq -y --no-install-recommends $want >"$log" 2>&1 </dev/null
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo 'peers: not Debian: nothing installed'
	exit 0
fi
unpack=$(dirname "$0")/unpack.sh
want=$(missing)
if [ -z "$want" ]; then
	echo 'peers: all are installed'
	exec sh "$unpack" $UNPACKED
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "peers: not root: not installed:$want"
	exit 0
fi

echo "peers: installing:$want"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp) || exit 1
forbid_services
status=0
# A mirror that fails for a moment gets a second chance.
install || { sleep 5; want=$(missing); install; } || {
	status=1
	cat "$log" >&2
	echo "peers: could not install:$(missing)" >&2
}
rm -f "$log"
sh "$unpack" $UNPACKED || status=1
exit "$status"
