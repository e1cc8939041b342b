# `make demo` shows it, `make test` proves it; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test check check-terraform no-terraform format bench bench-full bench-file clean

help:
	@echo "make demo   customers travel from a fake Ploomes to a fake Milvus, with faults and a kill -9"
	@echo "make test   all tests"
	@echo "make check  format, lint, types, and what terraform would make of terraform/"
	@echo "make bench  speed and memory against other ways of doing it, operations on Google Cloud, cold starts"
	@echo "make bench-full  speed and memory with a million records"
	@echo "make bench-file  a CSV of 2 GB in under 300 MB of memory (about 10 minutes, 10 GB of disk)"

setup: .venv/ready

.venv/ready: requirements.txt tests/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

demo: setup
	@$(BIN)/python -m tests.sandbox.demo

test: setup
	$(BIN)/python -m pytest -n 3 --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory $(if $(shell command -v terraform),check-terraform,no-terraform)

check-terraform: setup .checkov/ready
	$(BIN)/python -m tests.terraform
	.checkov/bin/checkov --directory terraform --framework terraform --skip-download --quiet --compact

# Says why nothing is checked, and fails where WAYBILL_REQUIRE_TERRAFORM=1.
no-terraform: setup
	@$(BIN)/python -m tests.terraform

# Its hundred packages are no business of anything else here.
.checkov/ready: tests/terraform/requirements.txt
	$(PYTHON) -m venv --clear .checkov
	.checkov/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(if $(shell command -v terraform),terraform fmt -recursive terraform)

bench: setup .venv/bench
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.counts
	$(BIN)/python -m tests.bench.rest
	$(BIN)/python -m tests.bench.cold

bench-full: setup .venv/bench
	$(BIN)/python -m tests.bench --full

bench-file: setup
	$(BIN)/python -m tests.bench.large_file

.venv/bench: .venv/ready tests/bench/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/bench/requirements.txt
	@touch $@

clean:
	rm -rf .venv .checkov .demo .bench terraform/.archives terraform/.terraform .pytest_cache .mypy_cache .ruff_cache .hypothesis
