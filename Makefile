# make           builds all programs into bin/
# make demo      shows the suite at work on three messages, in a minute
# make test      checks and tests everything
#
# Further: check (the quick part of test), fuzz, bench, run, install, clean.

GO      ?= go
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR  ?= $(PREFIX)/share/man
# Settings, units and the like are looked for in fixed places.
SYSCONFDIR  ?= /etc/postern
UNITDIR     ?= /usr/lib/systemd/system
SYSUSERSDIR ?= /usr/lib/sysusers.d
TMPFILESDIR ?= /usr/lib/tmpfiles.d

# How long each fuzz test runs.
FUZZTIME ?= 1m

DAEMONS  = smtp-proxy multiplexor pop3-stamp
TOOLS    = notify-cat notify-exec notify-wait
SBIN     = $(DAEMONS) mx-ctrl filter-basic
SOURCES  = ./smtp-proxy ./multiplexor ./multiplexor/mx-ctrl ./pop3-stamp \
           ./filters/filter-basic ./notify-tools/notify-cat \
           ./notify-tools/notify-exec ./notify-tools/notify-wait

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ $(SOURCES)

check:
	@test/run.sh check

test:
	@test/run.sh

fuzz:
	@test/fuzz.sh $(FUZZTIME)

bench: build
	CGO_ENABLED=0 $(GO) run ./test/bench

demo: build
	@CGO_ENABLED=0 $(GO) run ./test/demo

run: build
	@CGO_ENABLED=0 $(GO) run ./test/demo -stay

# Settings that are there already are left alone; the new sample goes beside them.
install: build
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SBINDIR)
	cd bin && install -m 755 $(SBIN) $(DESTDIR)$(SBINDIR)/
	cd bin && install -m 755 $(TOOLS) $(DESTDIR)$(BINDIR)/
	for page in man/*.[1-9]; do \
		install -d $(DESTDIR)$(MANDIR)/man$${page##*.} && \
		install -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/ || exit 1; \
	done
	install -d $(DESTDIR)$(SYSCONFDIR)
	for conf in etc/*.conf; do \
		there=$(DESTDIR)$(SYSCONFDIR)/$${conf##*/}; \
		if [ -e $$there ]; then there=$$there.sample; fi; \
		install -m 644 $$conf $$there || exit 1; \
	done
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(TMPFILESDIR)
	for unit in etc/systemd/*; do \
		sed 's|/usr/sbin/|$(SBINDIR)/|g' $$unit >bin/.unit && \
		install -m 644 bin/.unit $(DESTDIR)$(UNITDIR)/$${unit##*/} || exit 1; \
	done
	rm -f bin/.unit
	install -m 644 etc/sysusers.d/postern.conf $(DESTDIR)$(SYSUSERSDIR)/
	install -m 644 etc/tmpfiles.d/postern.conf $(DESTDIR)$(TMPFILESDIR)/

clean:
	rm -rf bin

.PHONY: all build check test fuzz bench demo run install clean
