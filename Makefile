# `make demo` and `make demo PROFILE=staging` are the two commands for newcomers; `make help` lists the rest.
# Everything goes into .venv; a target that finds it ready starts at once.

# Dagster starts a process for each step; where Python may not keep its bytecode, each compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

PROFILE ?= local
BIN := .venv/bin
PROJECTS := pyproject.toml examples/digits/pyproject.toml scripts/venv.sh

.PHONY: help demo demo-scale-out test test-fast test-long test-slurms test-containers check format reference docs pictures benchmarks clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo                  run the example on this machine'
	@echo 'make demo PROFILE=staging  run it through a real Slurm, started for it (KEEP=1: and left running)'
	@echo 'make demo-scale-out        train with PyTorch, sweep with Ray (installs both, 2 GB); PROFILE=staging: over two nodes'
	@echo 'make test [ARGS="-k ..."]  run the tests, with a real Slurm and a browser where they can be installed'
	@echo 'make test-fast             only those that need neither Slurm nor sshd nor a framework'
	@echo 'make test-long             strike Dagster at ten moments with three signals: ninety stories on a real Slurm'
	@echo 'make test-slurms           those that need Slurm, on the Slurms of this system, Debian 13 and Debian unstable'
	@echo 'make test-containers       containers on two nodes, by Apptainer in Debian unstable (as root; 15 minutes and 4 GB the first time)'
	@echo 'make check                 style, types, layers, shell files, schemas, examples in the docs'
	@echo 'make format                let ruff format and fix what it can'
	@echo 'make reference             write the JSON Schemas and the pages of reference anew'
	@echo 'make docs                  build the documentation site: site/index.html'
	@echo 'make pictures              make docs/pictures anew (needs chromium and chromium-driver)'
	@echo 'make benchmarks            run all of benchmarks/'
	@echo 'make clean                 remove .venv, caches, and what the example left'

demo: .venv/demo.stamp
	@KEEP="$(KEEP)" $(BIN)/python examples/digits/demo.py "$(PROFILE)"

demo-scale-out: .venv/demo.stamp
	@$(BIN)/python scripts/framework_venvs.py torch ray
	@KEEP="$(KEEP)" $(BIN)/python examples/digits/demo.py "$(PROFILE)" +group:scale_out

# PYTEST_WORKERS: tests mostly wait (for Slurm, for ssh), so there may be more workers than cores.
PYTEST_WORKERS ?= 4

# The site's environment is made here and not by a test, whose own variables made `python -m venv` fail once.
test: .venv/dev.stamp .venvs/docs/stamp
	@$(BIN)/python scripts/slurm_packages.py --optional
	@$(BIN)/python -m pytest -n "$(PYTEST_WORKERS)" --dist loadgroup --ignore tests/test_house.py $(ARGS)

# Neither Slurm nor sshd nor frameworks, and nothing that takes long.
test-fast: .venv/dev.stamp
	@$(BIN)/python -m pytest -q -n "$(PYTEST_WORKERS)" --ignore tests/test_house.py \
		-m "not slurm and not ssh and not frameworks and not slow" $(ARGS)

# One worker: the runs of ten stories at a time keep two cores busy.
test-long: .venv/dev.stamp
	@$(BIN)/python scripts/slurm_packages.py
	@DAGSTER_SLURM_LONG_TESTS=1 $(BIN)/python -m pytest tests/lifecycle/test_all_moments.py tests/left/test_killed.py $(ARGS)

# SLURMS: some of here, bookworm, trixie, sid. All but the first are made by root, with debootstrap, in .cache/roots.
test-slurms: .venv/dev.stamp
	@$(BIN)/python scripts/test_slurms.py $(SLURMS) -- $(ARGS)

test-containers: .venv/dev.stamp
	@$(BIN)/python scripts/test_containers.py $(ARGS)

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg-slurm schema --check
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python -m pytest -q tests/test_house.py

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: .venv/dev.stamp
	$(BIN)/dg-slurm schema
	$(BIN)/python scripts/reference.py

# DOCS_REPOSITORY, DOCS_URL: addresses of the repository and of the published site, for links.
docs: .venvs/docs/stamp
	@.venvs/docs/bin/python -m zensical build --clean --strict

pictures: .venv/demo.stamp .venvs/pictures/stamp
	@.venvs/pictures/bin/python scripts/pictures.py

benchmarks: .venv/dev.stamp
	@set -e; for benchmark in benchmarks/[a-z]*.py; do echo "$$benchmark"; $(BIN)/python "$$benchmark"; done

clean:
	rm -rf .venv .venvs build dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf examples/*/.dagster examples/*/.dagster-slurm
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/demo.stamp: $(PROJECTS)
	@scripts/venv.sh demo
	@touch $@

.venv/dev.stamp: $(PROJECTS)
	@scripts/venv.sh dev
	@touch $@ .venv/demo.stamp

.venvs/%/stamp: scripts/%-requirements.txt
	@scripts/venv.sh $*
	@touch $@
