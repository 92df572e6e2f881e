# `make demo`  a checkpoint becomes a bundle, and the bundle scores a human and a synthetic clip; needs no root
# `make check` lint, types and the quick tests: what to run while working
# `make test`  everything; may install system packages, and says which first
# `make coverage`  the same tests, half as long again, and the lines that none of them reaches
# `make calibrate-demo`  the demo detector's llrs and threshold, and their plots for the README; CORPUS: of export/demo/calibration_set.py
# `make evaluate-demo`  the committed demo detector on eval, for the record alone; adds a line to its log
# `make benchmark-tables`  the README's tables of benchmarks, from benchmarks/results

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
CODE := runtime/nes2net_runtime calib/nes2net_calib export/nes2net_export benchmarks/nes2net_bench

CORPUS ?= ../shared/corpus
DEMO := runtime/nes2net_runtime/demo.nes2net

.PHONY: demo check lint test coverage calibrate-demo evaluate-demo benchmark-tables clean

$(VENV)/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[export,cpu]'
	touch $@

$(VENV)/dev: $(VENV)/demo
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/demo
	@BIN=$(BIN) sh scripts/demo.sh

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -q -m "not slow"

test:
	sh scripts/system-packages.sh
	$(MAKE) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

coverage: $(VENV)/dev
	sh scripts/system-packages.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

calibrate-demo: $(VENV)/dev
	$(BIN)/nes2net-calib $(DEMO) --protocol $(CORPUS)/dev-with-copies.csv --split dev --target-bonafide-rejected 0.1
	mkdir -p docs/plots
	cp $(DEMO)/reports/calibration-*.png docs/plots/

evaluate-demo: $(VENV)/dev
	$(BIN)/python export/demo/evaluate.py --corpus $(CORPUS) --split eval --log export/demo/eval.jsonl

benchmark-tables: $(VENV)/dev
	$(BIN)/python benchmarks/tables.py

clean:
	rm -rf $(VENV) build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
