# One command each. `make demo` and `make test` need a Rust toolchain and nothing else: what the machine lacks,
# scripts/setup.sh installs with apt (as root) or names.
#
#   make demo           three nodes at work, the leader killed half way; Ctrl-C ends it
#   make demo FOR=30    the same, ends by itself after 30 s; the exit status says whether all held
#   make test           format, lints on both builds, all tests; changes nothing
#   make fix            formats, and applies what lints can mend
#   make sim            simulates whole clusters under faults and judges them: 60 seeds, or SEEDS=100000, which goes on
#                       where it stopped
#   make sim-build      builds the simulator and prints its path
#   make scenarios      simulates each scenario file, and judges it by what it expects as well; part of sim
#   make bench          measures, and writes target/bench/report.md and report.json; QUICK=1 for smaller numbers
#   make bench-full     the same with ten million tasks, growth and a soak: under two hours
#   make bench-micro    the wheel, the codec, apply and keys alone, by criterion

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Where cargo builds; the simulated build has a directory of its own inside, because its flags differ.
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
# The crates that also build for the simulator. `bench` drives real processes and is not among them.
SIM_CRATES := campanile-model campanile-timer campanile-client campanile-store campanile-raft campanile-server \
	campanile-sim-tests
SIM_PACKAGES := $(addprefix -p ,$(SIM_CRATES))
sim-cargo = RUSTFLAGS="--cfg madsim" CARGO_TARGET_DIR="$(TARGET)/sim" cargo

# A compiler cache, if there is one, spares a second build of RocksDB.
ifneq ($(shell command -v ccache),)
ifeq ($(origin CC),default)
export CC := ccache gcc
endif
ifeq ($(origin CXX),default)
export CXX := ccache g++
endif
endif

.PHONY: build demo test lint unit sim sim-build scenarios licences advisories fix bench bench-full bench-micro setup

build: setup
	cargo build --release --locked -p campanile-server
	@if [ "$(TARGET)" != target ]; then \
		mkdir -p target/release && cp -f "$(TARGET)/release/campanile" target/release/campanile; \
	fi

demo: build
	target/release/campanile demo $(if $(FOR),--for $(FOR)s)

test: lint unit sim licences

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(sim-cargo) clippy --locked $(SIM_PACKAGES) -- -D warnings

# The test of real processes must not be passed over here for want of the program, which the tests' build makes.
unit: export CAMPANILE_BINARY = $(abspath $(TARGET))/debug/campanile
unit: setup
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked --no-fail-fast; \
	else \
		cargo test --workspace --all-targets --locked --no-fail-fast; \
	fi
	cargo test --workspace --doc --locked

# The simulator is built with optimisations: it then simulates about a hundred times as fast as time goes.
SIMULATOR = $(abspath $(TARGET))/sim/release/campanile-sim
SEEDS ?= 60

sim-build: setup
	CAMPANILE_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null || true) $(sim-cargo) build --release --locked -p campanile-sim-tests
	@mkdir -p target/sim/release
	@[ "$(TARGET)" = target ] || cp -f "$(SIMULATOR)" target/sim/release/campanile-sim
	@echo "$(SIMULATOR)"

# First those that reach what is rare, and variants of them, then the others. Sixty seeds hit all marks but two or three. A longer sweep must have seen all of them, and keeps account of
# what is done, so that it can go on after an interruption. Then what a fire costs is counted, and may not have grown.
sim: sim-build scenarios
	@mkdir -p target/sim/failures
	"$(SIMULATOR)" sweep --seeds $(SEEDS) --corpus sim-tests/corpus.toml --keep target/sim/failures \
		$(if $(filter 60,$(SEEDS)),,--require-marks --resume target/sim/sweep-$(SEEDS).json)
	"$(SIMULATOR)" cost

# Each scenario file, one seed, with its expectations; but the year, which takes a quarter of an hour, the default, which
# `sim` sweeps, and what is in `returned`, which is for `hunt`.
SCENARIOS = $(filter-out %/default.toml %/a-year-of-leader-deaths.toml,$(wildcard sim-tests/scenarios/*.toml))

scenarios: sim-build
	@mkdir -p target/sim/failures
	for scenario in $(SCENARIOS); do \
		"$(SIMULATOR)" sweep "$$scenario" --seeds 1 --keep target/sim/failures || exit 1; \
	done

# Needs no network. The advisories do, and are a target of their own.
licences:
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny --locked check bans licenses sources; \
	else \
		echo "licences: skipped, cargo-deny is not installed (cargo install --locked cargo-deny)"; \
	fi

advisories:
	@if ! cargo deny --version >/dev/null 2>&1; then \
		echo "advisories: could not run, cargo-deny is not installed (cargo install --locked cargo-deny)"; \
	elif ! cargo deny fetch db >/dev/null 2>&1; then \
		echo "advisories: could not run, the advisory database cannot be fetched"; \
	else \
		cargo deny --locked check advisories; \
	fi

fix: setup
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench-full: FULL = 1
bench bench-full: build
	mkdir -p target/bench
	target/release/campanile bench $(if $(QUICK),--quick) $(if $(FULL),--full) --out target/bench/report.json | tee target/bench/report.md

bench-micro: setup
	cargo bench --locked -p campanile-model -p campanile-timer -p campanile-store

setup:
	@scripts/setup.sh
