# Every check has one target; .ci/run, the pre-commit hooks and the GitHub workflow call these and nothing else.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# What the contract is compared to: the last commit, or what the caller names (a pull request's base).
BASE ?= HEAD

.PHONY: help venv tools demo test test-compat test-faults test-fuzz test-lowest bench bench-smoke \
	gen gen-check lint audit breaking ci

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/installed ## make .venv and install everything into it

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "runstream needs Python 3.11 or newer; say which: make venv PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server,dev]'
	@touch $@

# Not an error here: without them the tests that need them are skipped, or fail in CI, with the reason.
tools: venv ## install MinIO, grpcurl and schemathesis once, outside the clone
	@$(BIN)/python scripts/tools.py minio grpcurl schemathesis || true

demo: venv ## train a real model against an embedded server and compare every point
	$(BIN)/python scripts/demo.py

test: venv tools ## everything except slow tests, on real PostgreSQL and MinIO
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-compat: venv tools ## the real MLflow clients against the REST door
	$(BIN)/python scripts/tools.py mlflow
	$(BIN)/python -m pytest tests/compat

# JOBS=0, on a machine with nothing else to do, also holds the slowest log call of each story to 50 ms.
test-faults: venv tools ## kill, stop and cut off everything under load, 6 long rounds a story; a table at the end
	FAULT_ROUNDS=$${FAULT_ROUNDS:-6} FAULT_QUIET=$(if $(filter 0,$(JOBS)),1,0) \
		$(BIN)/python -m pytest -n $(JOBS) -m faults tests/faults tests/integration/client

# The targets are those of tests/fuzz/targets.py.
test-fuzz: venv tools ## hunt with generated inputs: FUZZ_SECONDS (300) a target of the fuzzer, then all others
	$(BIN)/python scripts/tools.py schemathesis
	for target in filter body path journal; do \
		$(BIN)/python -m tests.fuzz $$target --seconds=$${FUZZ_SECONDS:-300} || exit 1; done
	$(BIN)/python -m tests.fuzz.messages --seconds=$${FUZZ_SECONDS:-300}
	$(BIN)/python -m pytest tests/security/test_generated_requests.py --timeout=3600
	$(BIN)/python -m pytest -n $(JOBS) -m hypothesis --hypothesis-profile=fuzz --timeout=3600

test-lowest: ## the unit tests on the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -e '.[server]' -c scripts/lowest.txt pytest pytest-timeout hypothesis
	.venv-lowest/bin/python -m pytest tests/unit tests/test_layout.py

bench: venv tools ## measure; print the figures, keep the run, fill the tables of docs/benchmarks.md
	$(BIN)/python scripts/tools.py mlflow
	$(BIN)/python -m bench --save
	$(BIN)/python -m bench --tables

bench-smoke: venv tools ## run every benchmark briefly, to see that it runs
	$(BIN)/python scripts/tools.py mlflow
	$(BIN)/python -m bench --smoke

gen: venv ## write gen/ from proto/
	$(BIN)/python scripts/gen.py

gen-check: venv ## fail if gen/ is not what proto/ gives
	$(BIN)/python scripts/gen.py --check

lint: venv ## style, types and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

audit: venv ## known holes in dependencies, unsafe calls, secrets in files
	$(BIN)/python scripts/audit.py

breaking: venv ## fail if the contract breaks clients of BASE
	@if git cat-file -e $(BASE):buf.yaml 2>/dev/null; then \
		$(BIN)/buf breaking --against "$$(git rev-parse --git-common-dir)#ref=$$(git rev-parse $(BASE))"; \
	else echo "$(BASE) has no contract to compare with"; fi

ci: lint audit gen-check breaking test ## what CI runs
