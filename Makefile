PYTHON ?= python3
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo explore test check bench clean

demo: .venv/.installed
	.venv/bin/mogul demo

explore: .venv/.installed
	test -f mogul-demo/digits.mogul || $(MAKE) demo
	.venv/bin/mogul explore mogul-demo/digits.mogul

test: .venv/.installed-dev check
	.venv/bin/pytest -n auto

check: .venv/.installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports

bench: .venv/.installed-dev
	$(PIP) -c constraints.txt -e '.[bench]'
	.venv/bin/python -m benchmarks speed --peers
	.venv/bin/python -m benchmarks mppca --loop
	.venv/bin/python -m benchmarks inference

clean:
	rm -rf .venv

# torch comes first and pinned exactly: a range may bring a build with gigabytes of GPU libraries.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -c constraints.txt -e '.[app]'
	touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@
