# `make demo`, `make test` and `make bench` work on a fresh machine with Python 3.11, pip and make; `make clean` removes
# .venv.

# The first of these that is 3.11 or newer.
PYTHON ?= $(firstword $(foreach p,python3.11 python3 python python3.12 python3.13,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test bench clean

demo: $(VENV)/.demo
	$(VENV)/bin/python -m suites.demo

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -n 2 -q

bench: $(VENV)/.test
	$(VENV)/bin/python -m suites.history

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer is on the PATH: install one, or give make PYTHON=..."; exit 1; }
	@echo "creating $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

# A stamp a set of packages: made again only when what it depends on changes.
$(VENV)/.%: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing genharness[$*] into $(VENV); torch is large, so the first time takes minutes ..."
	@$(PIP) -c constraints.txt -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV)
