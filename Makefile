# Two commands matter: `make up` and `make test`. See README.md.

SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# A program built elsewhere serves as well; then nothing is built.
NUBO := $(or $(NUBO_BIN),$(CARGO_TARGET_DIR)/release/nubo)
# sudo only where it is needed, keeping our own settings.
SETTINGS := NUBO_STATE,NUBO_LISTEN,NUBO_PUBLIC_URL,NUBO_ACCEL,NUBO_STORE,NUBO_EXTERNAL_CIDR,NUBO_UPLINK,NUBO_NETNS,NUBO_KSM,NUBO_LOG,NUBO_BCRYPT_ROUNDS,NUBO_DEADLINES
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=$(SETTINGS))

.PHONY: up down purge build test sim conformance bench tidy packages

up:
	@scripts/toolchain
	@scripts/packages up
	@$(MAKE) --no-print-directory build
	@$(AS_ROOT) $(NUBO) up

down:
	@if [ -x $(NUBO) ]; then $(AS_ROOT) $(NUBO) down $(if $(filter stop,$(GUESTS)),--guests stop); else echo "nothing is built here, so nothing of this checkout runs"; fi

purge:
	@if [ ! -x $(NUBO) ]; then scripts/toolchain && $(MAKE) --no-print-directory build; fi
	@$(AS_ROOT) $(NUBO) purge

build:
ifdef NUBO_BIN
	@echo "using $(NUBO_BIN)"
else
	@echo "building the release program"
	@cargo build --release --locked --package nubo
endif

test:
	@scripts/test

# Twenty thousand histories, and every planted defect: hours. A defect is mostly found within the time that the quicker
# program would take longer to be built.
sim:
	@cargo xtask sim --profile sim --seeds 0..20000
	@cargo xtask sim --defects

conformance:
	@tests/conformance/run $(or $(SUITE),identity)

bench:
	@cargo xtask bench

tidy:
	@cargo xtask tidy
