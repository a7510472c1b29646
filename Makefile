# `make demo` and `make test` set the machine up first; run them again as often as you like.
.PHONY: help setup demo test test-thorough test-all test-core test-backends test-second-stack lint format api constraints licences advisories release clean
.DEFAULT_GOAL := help

# A shell's own settings must not decide what runs here. Without .pyc files each `import tfx` costs four times the CPU.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH PYTEST_ADDOPTS VIRTUAL_ENV
unexport KERAS_BACKEND KERAS_HOME TF_USE_LEGACY_KERAS
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Without this, Google's libraries look for a metadata server for seconds on every machine that is not theirs.
export NO_GCE_CHECK ?= true
# What `make setup` fetches, or the machine's own.
UV = $(or $(wildcard .tools/uv/bin/uv),uv)
# Two processes keep two cores busy; a file's tests share what it builds, so they stay in one of them. Sorted by their number of tests, as
# is the default, the files of whole pipelines would come last, and leave one process with nothing to do.
WORKERS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
# So that whoever makes a test slow sees it.
SLOWEST = --durations 20 --durations-min 5

help: ## list what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | while IFS="$$(printf '\t')" read -r name text; do printf 'make %-18s %s\n' "$$name" "$$text"; done
	@echo 'ARGS="..." reaches the command: make test ARGS="tests/core -x". MORPH_PYTHON and MORPH_EXTRAS: see tools/setup.sh.'

setup: ## make .venv with the TFX stack that this machine can run
	@tools/setup.sh

demo: setup ## two morphing cycles on scikit-learn's digits, to a model that serves
	.venv/bin/morph-tfx demo $(ARGS)

test: lint ## check style and types, then run the tests of ten minutes (or those of them in ARGS)
	.venv/bin/python -m pytest $(WORKERS) $(SLOWEST) $(ARGS)

test-thorough: lint ## as `make test`, with all cases of every law and pipeline: what .ci/run runs
	.venv/bin/python -m pytest $(WORKERS) $(SLOWEST) -m "not slow" $(ARGS)

test-all: lint ## as `make test-thorough`, with the tests that take hours
	.venv/bin/python -m pytest $(WORKERS) $(SLOWEST) -m "" $(ARGS)

test-core: setup ## run only the tests that need no TFX
	.venv/bin/python -m pytest tests/core $(ARGS)

test-backends: ## run the core's tests on JAX and PyTorch, where no TensorFlow is installed
	tools/backends.sh jax torch -- $(ARGS)

test-second-stack: ## as root: run the tests of TFX 1.21 in a Debian 13 root (see tools/second_stack.sh)
	tools/second_stack.sh $(if $(ARGS),-- $(ARGS))

lint: setup ## check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	@# Keras and TFX carry no types, and what the checker guesses of them differs between the stacks: one stack decides.
	@case "$$(.venv/bin/python --version)" in \
	  "Python $$(cat .python-version)."*) echo .venv/bin/pyright; .venv/bin/pyright ;; \
	  *) echo "types are checked on Python $$(cat .python-version) only, this is $$(.venv/bin/python --version)" ;; \
	esac

format: setup ## rewrite the source files in the project's style
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

api: setup ## write the reference of every public name to build/api, from the docstrings
	.venv/bin/python tools/write_api.py build/api

constraints: setup ## write constraints/ from uv.lock: versions that fit together, for plain pip
	.venv/bin/python tools/write_constraints.py

licences: setup ## list the licence of everything in .venv
	@$(UV) tool run --quiet --from 'pip-licenses>=5,<6' pip-licenses --python .venv/bin/python --order license $(ARGS)

advisories: setup ## tell which locked dependencies have known advisories (asks pypi.org; ARGS="--service osv": api.osv.dev)
	@.venv/bin/python tools/check_advisories.py --uv $(UV) $(ARGS)

release: setup ## build dist/: the wheel, the source, constraints for pip, and an SBOM (CycloneDX) of what the extras bring
	rm -rf dist
	$(UV) build --quiet --out-dir dist
	cp constraints/constraints-*.txt dist/
	wheel=$$(basename dist/*.whl) && name=$${wheel%-py3-none-any.whl} && \
	  $(UV) export --quiet --frozen --extra tfx --extra kubeflow --format cyclonedx1.5 --output-file "dist/$$name.cdx.json" > /dev/null && \
	  .venv/bin/python tools/name_version.py "dist/$$name.cdx.json" "$${name#*-}"
	ls -l dist

clean: ## remove everything that these commands made
	rm -rf .venv .venv-jax .venv-torch .tools build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
