# make demo | test | check | bench | load | growth | audit | attachment | drain | fairness | faults | soak | mutants | verifier | measure | fmt
PY := .venv/bin/python
# a run starts hundreds of Python processes, each of which would compile everything anew where this is set
export PYTHONDONTWRITEBYTECODE :=
.PHONY: demo test check screenshots bench load growth audit attachment drain fairness faults soak mutants contract verifier measure fmt

.venv/ready: pyproject.toml
	python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/ready
	.venv/bin/tracewire demo $(ARGS)

test: .venv/ready
	$(PY) -m pytest $(or $(ARGS),-n 3 --dist loadfile --no-loadscope-reorder)

check: .venv/ready
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	$(PY) tests/test_tidy.py

ROUNDS ?= 3
SEEDS ?= 0:20000
faults: .venv/ready
	ROUNDS=$(ROUNDS) SEEDS=$(SEEDS) $(PY) -m pytest tests/fault tests/simulation -m "slow or not slow" $(or $(ARGS),-n 3 --dist loadfile)

SOAK_S ?= 300
NODES ?= 20
soak: .venv/ready
	SOAK_S=$(SOAK_S) NODES=$(NODES) $(PY) -m pytest tests/fault/test_soak.py -m slow $(ARGS)

contract: .venv/ready
	TRACEWIRE_CONTRACT=whole $(PY) -m pytest tests/http/test_contract.py

mutants: .venv/ready
	$(PY) tests/fault/mutants.py $(ARGS)

bench: .venv/ready
	$(PY) tests/bench/order.py
	$(PY) tests/bench/bench.py $(ARGS)

attachment: .venv/ready
	PYTHONPATH=. $(PY) tests/bench/attachment.py $(ARGS)

load: .venv/ready
	PYTHONPATH=. $(PY) tests/bench/load.py $(ARGS)

growth: .venv/ready
	PYTHONPATH=. $(PY) tests/bench/growth.py $(ARGS)

audit: .venv/ready
	PYTHONPATH=. $(PY) tests/bench/audit.py $(ARGS)

screenshots: .venv/ready
	PYTHONPATH=. $(PY) tests/browser/screenshots.py

fairness: .venv/ready
	PYTHONPATH=. $(PY) tests/bench/fairness.py

drain: .venv/ready
	PYTHONPATH=. $(PY) tests/bench/drain.py $(ARGS)

verifier:
	mkdir -p build
	python3 -m zipapp deploy/verifier -o build/tracewire-verify.pyz

measure: .venv/ready
	$(PY) tests/bench/measure.py

fmt: .venv/ready
	.venv/bin/ruff check --fix --quiet .
	.venv/bin/ruff format --quiet .
