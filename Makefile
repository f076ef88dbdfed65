PYTHON ?= python3
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo explore test check docs bench torture clean

demo: .venv/.installed
	.venv/bin/mogul demo

explore: .venv/.installed
	test -f mogul-demo/digits.mogul || $(MAKE) demo
	.venv/bin/mogul explore mogul-demo/digits.mogul

test: .venv/.installed-dev check docs
	.venv/bin/pytest -n auto --dist worksteal

check: .venv/.installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports

# The variable silences a notice of the theme about its successor, which is no warning of ours.
docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

bench: .venv/.installed-dev
	$(PIP) -c constraints.txt -e '.[bench]'
	.venv/bin/python -m benchmarks speed --peers
	.venv/bin/python -m benchmarks mppca --loop
	.venv/bin/python -m benchmarks inference

torture: .venv/.installed-dev
	.venv/bin/python -m torture

clean:
	rm -rf .venv site

# torch comes first and pinned exactly: a range may bring a build with gigabytes of GPU libraries.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -c constraints.txt -e '.[app]'
	touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) -c constraints.txt -e '.[dev,docs]'
	touch $@
