# What there is to do. `make` alone lists it. Every build goes through scripts/cargo: outside the checkout, against a
# RocksDB that is compiled once (scripts/env names the variables that move things).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

cargo := scripts/cargo

.PHONY: help
help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Three nodes on loopback, a real site, a killed leader; runs until Ctrl-C. CI=1: exits by itself.
	@scripts/install-deps test
	@CI=$(CI) scripts/demo

.PHONY: test
test: ## Everything that CI runs: install what the tests lack, verify, all tests.
	@scripts/install-deps test
	@$(MAKE) --no-print-directory verify
	@scripts/test

.PHONY: verify
verify: fmt-check shellcheck clippy doc deny ## Format, lints, documentation, licenses. Never writes.

.PHONY: fmt-check
fmt-check:
	$(cargo) fmt --all --check

.PHONY: shellcheck
shellcheck:
	shellcheck --external-sources --source-path scripts scripts/* .ci/run

.PHONY: clippy
clippy:
	$(cargo) clippy --workspace --all-targets --locked -- -D warnings
	$(cargo) clippy --package onward --package onward-jepsen --features onward/mutants,onward-jepsen/mutants --all-targets \
		--locked -- -D warnings

.PHONY: doc
doc: # Crate docs link to private modules, which are documented too.
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(cargo) doc --workspace --no-deps --document-private-items --locked

.PHONY: deny
deny:
	scripts/deny

.PHONY: fix
fix: ## What verify asks for, done: formats, and applies the lints that apply themselves.
	$(cargo) fmt --all
	$(cargo) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(cargo) fmt --all

.PHONY: build
build: ## The workspace, for development.
	@scripts/install-deps build
	$(cargo) build --workspace --all-targets --locked

.PHONY: release
release: ## The one binary, as it ships. Prints where it is.
	@scripts/install-deps build
	@$(cargo) build --release --locked --package onward
	@. scripts/env; ls -l "$$target/release/onward"

.PHONY: bench
bench: ## Speed beside etcd, growth, restart, rest; into docs/benchmarks.md. ONLY=growth: a part. QUICK=1: short, to look at.
	@scripts/install-deps build
	@$(cargo) build --release --locked --package onward --package onward-bench
	@. scripts/env; "$$target/release/onward-bench" --onward "$$target/release/onward" \
		$(if $(QUICK),--quick,--write docs/benchmarks.md) $(if $(ONLY),--only $(ONLY))

.PHONY: jepsen
jepsen: ## Fault testing, the part that CI runs: three runs under faults, 200 seeds of the simulator.
	@scripts/install-deps test
	@scripts/jepsen smoke

.PHONY: jepsen-nightly
jepsen-nightly: ## Every workload under every composition of faults, 10,000 seeds: hours.
	@scripts/install-deps test
	@scripts/jepsen nightly

.PHONY: mutants
mutants: ## Plants bugs, one by one, and shows which check finds each.
	@scripts/install-deps test
	@scripts/mutants

.PHONY: install-deps
install-deps: ## Packages and Rust, where they are missing. Says what and why.
	@scripts/install-deps test
