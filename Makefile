# Two commands from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0

DEMO_PATCHES ?= none,truncate,pi,ntk,yarn,rerope,rerope+logn,window,streaming
DEMO_TASKS ?= ppl,repeat,continuation(new=32)
DEMO_LENGTHS ?= 512,1k,4k
DEMO_N ?= 6

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test check

demo: $(READY)
	$(RUN) -m harness --model tiny --patch '$(DEMO_PATCHES)' --task '$(DEMO_TASKS)' \
		--len $(DEMO_LENGTHS) --n $(DEMO_N) --out results/demo \
		--csv results/demo.csv --figure results/demo.png

test: check
	$(RUN) -m pytest -q

check: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# torch goes first: the packages after it then keep the build that TORCH names.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet "$(TORCH)"
	$(RUN) -m pip install --quiet -e '.[dev]'
	touch $@
