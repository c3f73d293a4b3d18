# 'make demo' shows the main job on a real arm64 kernel, 'make check' passes every test; both install what they need.

VENV := .venv
PYTHON := $(VENV)/bin/python3

.PHONY: demo check lint types unit lab matrix bench clean

demo: .venv/.lab
	$(PYTHON) -m tests.lab.demo

check: lint types unit lab

lint: .venv/.installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	shellcheck hooks/qemu .ci/run .ci/install

types: .venv/.installed
	$(VENV)/bin/mypy

unit: .venv/.installed
	$(VENV)/bin/pytest -n 2 tests/unit

lab: .venv/.installed
	$(VENV)/bin/pytest -n 2 --dist loadfile tests/lab

# real migrations between pairs of lab hosts, each held against what the gate said of it beforehand; 'lab' has a few
matrix: .venv/.lab
	$(PYTHON) -m tests.lab.matrix --jobs 2

# the ratios of the README's table: inside a lab host, and on this machine
bench: .venv/.installed
	$(PYTHON) -m tests.bench

.venv/.installed: setup.cfg pyproject.toml .ci/install
	.ci/install all
	touch $@

# the demonstration needs no Python package beyond Debian's
.venv/.lab: .ci/install
	.ci/install lab
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
