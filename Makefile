# Every target sets up what it needs in $(VENV), once: the stamps below are
# renewed only when pyproject.toml changes.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN := $(VENV)/bin
PY  := $(BIN)/python

# Two test processes with one thread each: the tensors in the tests are small,
# and more threads than cores would only wait for each other.
WORKERS ?= 2
THREADS ?= 1

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 picks the interpreter; ARGS=\"...\" goes to the command that is run."

.PHONY: demo
demo: $(VENV)/.installed-demo ## set up, then compare SGD, AdamW and NysAct on a small problem
	$(BIN)/nysact demo $(ARGS)

.PHONY: test
test: $(VENV)/.installed-dev ## set up, then run the fast tests
	OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest -n $(WORKERS) $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.installed-dev ## run the tests that take minutes, and more examples of the others
	$(PY) -m pytest -m "slow or hypothesis" --hypothesis-profile thorough --timeout 3600 $(ARGS)

.PHONY: lint
lint: structure ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

.PHONY: structure
structure: $(VENV)/.installed-dev ## check imports, copies and the lengths of files and functions
	$(BIN)/lint-imports --no-cache
	$(PY) tools/structure.py

.PHONY: format
format: $(VENV)/.installed-dev ## fix what can be fixed, and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: types
types: $(VENV)/.installed-dev ## check types
	$(PY) -m mypy

.PHONY: docs
docs: $(VENV)/.installed-docs ## build the documentation into docs/_build/html
	$(PY) -m sphinx -W --keep-going -E -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: approximation
approximation: $(VENV)/.installed ## measure how close each sketch comes to the exact preconditioner
	$(PY) benchmarks/approximation.py $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.installed-models ## count the share of well-known models that is preconditioned
	$(PY) benchmarks/coverage.py

.PHONY: directions
directions: $(VENV)/.installed ## measure how far each preconditioner turns the gradient
	$(PY) benchmarks/directions.py $(ARGS)

.PHONY: step-time
step-time: $(VENV)/.installed ## measure the time of a training step against SGD
	$(BIN)/nysact bench resnet32 --optimizers nysact $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-models ## measure time and memory of a step: ARGS="MODEL ... --optimizers ..."
	$(BIN)/nysact bench $(ARGS)

.PHONY: growth
growth: $(VENV)/.installed ## measure how the cost grows with a layer's inputs and the rank
	$(BIN)/nysact growth $(ARGS)

.PHONY: theory
theory: $(VENV)/.installed ## check the convergence theorem by experiment
	$(PY) -m benchmarks.theory $(ARGS)

.PHONY: bench-gpu
bench-gpu: $(VENV)/.installed-models $(VENV)/.installed-dev ## run the CUDA tests and all measurements of a GPU
	PYTHON=$(PY) bash benchmarks/gpu.sh $(ARGS)

.PHONY: optimizers
optimizers: $(VENV)/.installed ## train LeNet-5 with every optimizer and compare
	$(BIN)/nysact reproduce optimizers --yes $(ARGS)
	$(BIN)/nysact bench lenet5 --threads 1 --no-split --optimizers \
		adam,adamw,muon,adahessian,shampoo,soap,sketchysgd,ggt,mfac,kbfgs,foof,kfac,eva,skfac,released-columns,released-gaussian,nysact-columns,nysact-gaussian,nysact

.PHONY: clean
clean: ## remove what the targets built, except the environment
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Some distributions ship Python without ensurepip; there, the environment is
# made without pip, and the outer pip installs one into it.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nysact needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV) && \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(PY) install pip; }

$(VENV)/.installed-demo: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet -e ".[demo]"
	@touch $@

$(VENV)/.installed: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet -e ".[experiments]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	$(PY) -m pip install --quiet -e ".[experiments,dev]"
	@touch $@

$(VENV)/.installed-models: pyproject.toml | $(VENV)/.installed
	$(PY) -m pip install --quiet -e ".[experiments,models]"
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.installed
	$(PY) -m pip install --quiet -e ".[docs]"
	@touch $@
