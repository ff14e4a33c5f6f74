# make           builds all programs into bin/
# make demo      shows the suite at work on three messages, in a minute
# make check     formatting, vet, types on other machines, staticcheck, govulncheck, conventions, quick unit tests
# make test      checks and tests everything: ten minutes on two processors, the first time
# make soak      chaos, load and fuzzing at length: make soak SOAK=30m
#
# Further: cover (bin/cover.html), strain (the tests again and again on a machine
# under strain), bare (the tests on a bare Debian), boot (the tests of an installed
# system under systemd alone; needs root), emulated (unit tests of other machines), fuzz, bench, run, install, uninstall, packages, clean.

GO      ?= go
# Where the programs are built, and installed from.
BIN     ?= bin
COMPLETIONS ?= $(BIN)/completions
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR  ?= $(PREFIX)/share/man
DOCDIR  ?= $(PREFIX)/share/doc/postern
# What shells read to complete command lines.
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
# Filter workers, which only a multiplexor starts.
LIBEXECDIR ?= $(PREFIX)/libexec/postern
# Settings, units and the like are looked for in fixed places.
SYSCONFDIR  ?= /etc/postern
UNITDIR     ?= /usr/lib/systemd/system
SYSUSERSDIR ?= /usr/lib/sysusers.d
TMPFILESDIR ?= /usr/lib/tmpfiles.d

# How long `make soak` takes, and each test of `make fuzz`.
SOAK     ?= 30m
FUZZTIME ?= 1m

# How often `make strain` runs the tests; see test/strain.sh and test/bare.sh for more.
STRAIN ?= 10

# Packages are for these, of this version: that of the tag, or the next one's and the commit.
ARCHS   ?= amd64 arm64
VERSION ?= $(shell v=$$(git describe --tags --match 'v[0-9]*' 2>/dev/null) || v=v0.1~git$$(git log -1 --format=%cd.%h --date=format:%Y%m%d 2>/dev/null); echo $$v | sed 's/^v//; s/-/+/g')

# Flags and parts of the benchmark, such as BENCH='-quick smtp'; all by default.
BENCH ?=

# Checks of the boot test, such as BOOT='upgrade|removal', how many at a time, and where it keeps its Debian instead of /var/tmp/postern-boot-tree.
BOOT ?= .*
JOBS ?= 4
TREE ?=

DAEMONS  = smtp-proxy multiplexor pop3-stamp postern-board
TOOLS    = notify-cat notify-exec notify-wait
SBIN     = $(DAEMONS) mx-ctrl
WORKERS  = filter-basic
PROGRAMS = $(TOOLS) $(SBIN) $(WORKERS)
SOURCES  = ./smtp-proxy ./multiplexor ./multiplexor/mx-ctrl ./pop3-stamp ./board/postern-board \
           ./filters/filter-basic ./notify-tools/notify-cat \
           ./notify-tools/notify-exec ./notify-tools/notify-wait

all: build

build: programs completions

programs:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="$(GO_LDFLAGS)" -o $(BIN)/ $(SOURCES)

# Each program writes its own. Programs for another machine cannot be asked: COMPLETIONS is where those of this one did.
completions: programs
	@mkdir -p $(COMPLETIONS)
	@for program in $(PROGRAMS); do \
	  $(BIN)/$$program --completion bash >$(COMPLETIONS)/$$program && $(BIN)/$$program --completion zsh >$(COMPLETIONS)/_$$program && \
	  $(BIN)/$$program --completion fish >$(COMPLETIONS)/$$program.fish || exit 1; \
	done

check:
	@test/run.sh check

test:
	@test/run.sh

cover:
	@test/run.sh cover

soak:
	@test/soak.sh $(SOAK)

strain:
	@test/strain.sh $(STRAIN)

bare:
	@test/bare.sh

emulated:
	@test/emulated.sh

fuzz:
	@test/fuzz.sh $(FUZZTIME)

bench: build
	@test/peers.sh bench
	CGO_ENABLED=0 $(GO) build -o bin/bench ./test/bench
	bin/bench $(BENCH)

# The part of `make test` that needs root and debootstrap: see test/boot.
boot:
	CGO_ENABLED=0 POSTERN_BOOT_TREE=$(TREE) $(GO) test -v -count=1 -timeout 1h -parallel $(JOBS) -run 'TestBoot/^($(BOOT))$$' ./test/boot

version:
	@echo $(VERSION)

demo: build
	@CGO_ENABLED=0 $(GO) run ./test/demo

run: build
	@CGO_ENABLED=0 $(GO) run ./test/demo -stay

# Pages, settings and units name the places of PREFIX=/usr; here they get the
# real ones. The multiplexor looks for its worker there too, unless told.
PLACES = sed -e 's|/usr/libexec/postern|$(LIBEXECDIR)|g' -e 's|/usr/share/doc/postern|$(DOCDIR)|g' \
         $(foreach p,$(SBIN),-e 's|/usr/sbin/$(p)\>|$(SBINDIR)/$(p)|g') $(foreach p,$(TOOLS),-e 's|/usr/bin/$(p)\>|$(BINDIR)/$(p)|g') \
         -e 's|^\# *\(worker $(LIBEXECDIR)/\)|\1|'

# What is built is installed: root need not have a Go compiler for it, nor build files that are root's.
BUILT = $(addprefix $(BIN)/,$(PROGRAMS)) $(addprefix $(COMPLETIONS)/,$(PROGRAMS))

$(BUILT):
	@command -v $(GO) >/dev/null || { echo 'install: nothing is built: run make first, as a user who has Go' >&2; exit 1; }
	@$(MAKE) build

EXAMPLES = $(wildcard etc/examples/* etc/prometheus/*.rules.yml etc/grafana/*.json)

# Settings that are there already are left alone; the new sample goes beside them.
install: $(BUILT)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SBINDIR) $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(SYSCONFDIR) \
	  $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(TMPFILESDIR) $(DESTDIR)$(DOCDIR)/examples
	install -m 755 $(addprefix $(BIN)/,$(TOOLS)) $(DESTDIR)$(BINDIR)/
	install -m 755 $(addprefix $(BIN)/,$(SBIN)) $(DESTDIR)$(SBINDIR)/
	install -m 755 $(addprefix $(BIN)/,$(WORKERS)) pop3-stamp/postlogin/pop3-stamp-postlogin $(DESTDIR)$(LIBEXECDIR)/
	for page in man/*.[1-9]; do \
	  to=$(DESTDIR)$(MANDIR)/man$${page##*.}; \
	  install -d $$to && $(PLACES) $$page | install -m 644 /dev/stdin $$to/$${page##*/} || exit 1; \
	done
	install -d $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	install -m 644 $(addprefix $(COMPLETIONS)/,$(PROGRAMS)) $(DESTDIR)$(BASHDIR)/
	install -m 644 $(addprefix $(COMPLETIONS)/_,$(PROGRAMS)) $(DESTDIR)$(ZSHDIR)/
	install -m 644 $(patsubst %,$(COMPLETIONS)/%.fish,$(PROGRAMS)) $(DESTDIR)$(FISHDIR)/
	for conf in etc/*.conf; do \
	  to=$(DESTDIR)$(SYSCONFDIR)/$${conf##*/}; \
	  if [ -e $$to ]; then to=$$to.sample; fi; \
	  $(PLACES) $$conf | install -m 644 /dev/stdin $$to || exit 1; \
	done
	for unit in etc/systemd/*; do \
	  $(PLACES) $$unit | install -m 644 /dev/stdin $(DESTDIR)$(UNITDIR)/$${unit##*/} || exit 1; \
	done
	for example in $(EXAMPLES); do \
	  case $$example in *.conf | *.yml | *.json) mode=644 ;; *) mode=755 ;; esac; \
	  $(PLACES) $$example | install -m $$mode /dev/stdin $(DESTDIR)$(DOCDIR)/examples/$${example##*/} || exit 1; \
	done
	install -m 644 etc/sysusers.d/postern.conf $(DESTDIR)$(SYSUSERSDIR)/
	install -m 644 etc/tmpfiles.d/postern.conf $(DESTDIR)$(TMPFILESDIR)/

# Takes back what install has put there, but for settings.
uninstall:
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(TOOLS)) $(addprefix $(DESTDIR)$(SBINDIR)/,$(SBIN)) \
	  $(addprefix $(DESTDIR)$(LIBEXECDIR)/,$(WORKERS) pop3-stamp-postlogin) $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(wildcard etc/systemd/*))) \
	  $(addprefix $(DESTDIR)$(DOCDIR)/examples/,$(notdir $(EXAMPLES))) \
	  $(foreach page,$(notdir $(wildcard man/*.[1-9])),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page)) \
	  $(addprefix $(DESTDIR)$(BASHDIR)/,$(PROGRAMS)) $(addprefix $(DESTDIR)$(ZSHDIR)/_,$(PROGRAMS)) \
	  $(patsubst %,$(DESTDIR)$(FISHDIR)/%.fish,$(PROGRAMS)) \
	  $(DESTDIR)$(SYSUSERSDIR)/postern.conf $(DESTDIR)$(TMPFILESDIR)/postern.conf \
	  $(patsubst etc/%,$(DESTDIR)$(SYSCONFDIR)/%.sample,$(wildcard etc/*.conf))
	-rmdir $(DESTDIR)$(DOCDIR)/examples $(DESTDIR)$(DOCDIR) $(DESTDIR)$(LIBEXECDIR)

# A .deb and an .rpm for each of ARCHS, in bin/packages.
packages:
	etc/packages/build $(VERSION) $(ARCHS)
	test/packages.sh

clean:
	rm -rf bin

.PHONY: all build programs completions check test cover soak strain bare emulated fuzz bench boot version demo run install uninstall packages clean
