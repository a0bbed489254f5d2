# Daily commands. Each sets up .venv by itself, once per change of pyproject.toml or
# constraints.txt. Options: PYTHON=python3.12 (the interpreter of a new .venv), DATA=DIR
# (demo on the official KuaiRand files), ARGS="..." (passed on to pytest or the demo).

ROOMS := contracts training handlers streaming deploy benchmarks
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.10 python3)

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench report manifests lint format clean

help:  ## what this Makefile can do
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  make test ARGS="tests/contracts -x"         pass options on to pytest'
	@echo "  make test ARGS=\"-m 'not slow'\"             without what compiles for minutes"
	@echo '  make demo DATA=path/to/KuaiRand-Pure/data   the demo on real logs'
	@echo '  make setup PYTHON=python3.12                choose the interpreter (3.10 to 3.12)'

setup: $(READY)  ## create .venv and install the pinned versions
	@echo '$(VENV) is ready: '"$$($(BIN)/python --version)"

demo: $(READY)  ## the whole loop once: train, serve, feedback, refresh, experiment, roll back
	$(BIN)/python deploy/demo.py $(if $(DATA),--data "$(DATA)") $(ARGS)

test: $(READY)  ## run the tests, a file of them on each core (at most four)
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

bench: $(READY)  ## GReF beside its peers in one run, and how times grow with m and n (minutes)
	$(BIN)/python benchmarks/peers.py --out runs/bench/peers.json --markdown runs/bench/peers.md \
	  --plot runs/bench/peers.png $(ARGS)
	$(BIN)/python benchmarks/growth.py --out runs/bench/growth.json --markdown runs/bench/growth.md \
	  --plot runs/bench/growth.png

report: $(READY)  ## tables and plots of docs/evaluation again, from the stored results alone
	$(BIN)/python training/compare.py --report $(ARGS)

manifests: $(READY)  ## render every Kubernetes overlay and check it, without a cluster
	$(BIN)/python deploy/manifests.py check $(ARGS)

lint: $(READY)  ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(ROOMS)

format: $(READY)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and caches; slates, runs and releases stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info

# A launcher may be on PATH and still fail to run (version managers leave such shims), so each
# candidate is asked for its version instead of being looked up by name.
$(READY): pyproject.toml constraints.txt
	@fits='sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; found=''; \
	if ! $(BIN)/python -c "import sys, pip; $$fits" 2>/dev/null; then \
	  for python in $(PYTHONS); do \
	    if "$$python" -c "import sys, ensurepip; $$fits" 2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'Found no Python 3.10, 3.11 or 3.12 that has the venv module, among: $(PYTHONS).' >&2; \
	    echo 'Install one (Debian: apt-get install python3-venv), or name it: make setup PYTHON=/path/to/python3.11' >&2; \
	    exit 2; \
	  fi; \
	  echo "Creating $(VENV) with $$("$$found" --version)"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lint]"
	@touch $@
