# Everything here works from a fresh clone with nothing but python3 (3.11 or later, with pip and venv), make
# and git: each target sets up .venv by itself, and does nothing when it is up to date.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHONS ?= 3.11 3.12 3.13 3.14
PREFIX ?= $(HOME)/.local
ARGS ?=

# The tests start thousands of short processes: each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# Tools that few targets need have an environment of their own, so that no other target pays for them.
TOOLS := .venv-tools
INSTALLED = $(PREFIX)/share/fastn-p2p
# -qq: errors only.
PIP := -m pip --disable-pip-version-check -qq install
PROJECTS := pyproject.toml client/pyproject.toml

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
CHECKS := pyright mypy ruff imports packages
.PHONY: help install uninstall demo test test-all lint lab check bench soak dist docs site pictures format requirements services venv clean $(CHECKS)

help: ## Show what can be made.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: ## Install fastn-p2p for this user, or into another PREFIX than ~/.local; again to update it.
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv "$(INSTALLED)"
	@"$(INSTALLED)/bin/python" $(PIP) --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@"$(INSTALLED)/bin/python" $(PIP) --no-build-isolation --no-deps ./client .
	@mkdir -p "$(PREFIX)/bin" "$(PREFIX)/share/man/man1"
	@ln -sf "$(INSTALLED)/bin/fastn-p2p" "$(PREFIX)/bin/"
	@ln -sf "$(INSTALLED)"/share/man/man1/fastn-p2p*.1 "$(PREFIX)/share/man/man1/"
	@echo "installed $(PREFIX)/bin/fastn-p2p"
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo 'run: export PATH="$(PREFIX)/bin:$$PATH"' ;; esac

uninstall: ## Remove what `make install` has installed. Identities in ~/.fastn stay.
	@rm -rf "$(INSTALLED)"
	@rm -f "$(PREFIX)/bin/fastn-p2p" "$(PREFIX)"/share/man/man1/fastn-p2p*.1

demo: $(VENV)/runtime.stamp ## Two daemons on this machine, calls between them, a process killed and healed.
	@$(BIN)/fastn-p2p demo $(ARGS)

test: $(VENV)/dev.stamp ## Run the tests. ARGS go to pytest: make test ARGS='tests/unit -x'.
	@$(BIN)/python -m pytest -n auto -m 'not lab_long' $(ARGS)

test-all: ## Run the tests with each Python of PYTHONS that this machine has, each in an environment of its own.
	@failed=; for version in $(PYTHONS); do \
	    python=$$(for each in "$$(command -v python$$version)" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python \
	        "$$HOME"/.local/share/uv/python/cpython-$$version.*/bin/python; do \
	        "$$each" -c '' 2>/dev/null && echo "$$each" && break; done); \
	    if [ -z "$$python" ]; then echo "Python $$version: not on this machine"; continue; fi; \
	    echo "Python $$version: $$python"; \
	    $(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "failed with Python$$failed"; exit 1; }

lab: $(VENV)/dev.stamp ## Run all tests in networks of their own, long ones too. Needs root and /dev/net/tun.
	@$(BIN)/python -m pytest -n auto tests/lab $(ARGS)

check: $(VENV)/dev.stamp ## Format, lint, types and import contracts; changes nothing.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(CHECKS)

pyright: ; @$(BIN)/pyright
mypy: ; @$(BIN)/mypy
ruff: ; @$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; } && $(BIN)/ruff check --quiet .
imports: ; @$(BIN)/lint-imports --no-logo
packages: ; @$(BIN)/python -m pip --disable-pip-version-check check

bench: $(VENV)/dev.stamp ## Measure, and write docs/benchmarks.md.
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks $(ARGS)

soak: $(VENV)/dev.stamp ## Run two hours of load and faults: nothing may grow, slow down or be lost. SOAK_MINUTES=10 for less.
	@$(BIN)/python -m pytest -n 0 -m lab_long tests/e2e
	@$(BIN)/python -m tests.soak $(ARGS)

docs: $(VENV)/dev.stamp ## Write the tables in docs/ that are made from the code, manual pages and the site (build/site).
	@$(BIN)/python -m tests.docs
	@$(BIN)/python -m fastn_p2p.cli.manual fastn_p2p/cli/man
	@$(MAKE) -s site

site: $(VENV)/dev.stamp $(TOOLS)/docs.stamp # The documentation site, in build/site.
	@$(BIN)/python -m tests.docs.site build
	@cd build && ../$(TOOLS)/bin/zensical build --strict -f zensical.toml
	@! grep -rlE '<(script|img|link)[^>]+(src|href)="?https?:|unpkg[^"]*shim' build/site --include=*.html

pictures: $(VENV)/dev.stamp ## Write the pictures of terminals in docs/pictures, from two daemons that run.
	@$(BIN)/python -m tests.docs.pictures $(ARGS)

format: $(VENV)/dev.stamp ## Format the code and fix what can be fixed safely.
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lint: $(TOOLS)/lint.stamp ## Check containers, compose files, manifests, workflows and shell scripts.
	@$(TOOLS)/bin/hadolint deploy/container/*.Containerfile
	@$(TOOLS)/bin/yamllint --strict .github deploy
	@$(TOOLS)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(TOOLS)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/container/compose.yml deploy/scaled/compose.yaml
	@$(TOOLS)/bin/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/scaled/kubernetes/*.yaml))
	@$(TOOLS)/bin/shellcheck --exclude=SC2206 .ci/run .ci/services deploy/scaled/make_secrets  # empty words are meant to vanish

dist: $(TOOLS)/installers.stamp $(TOOLS)/release.stamp ## Build wheels and sdists of the last commit, twice, and compare.
	@$(TOOLS)/bin/python deploy/distributions.py $(TOOLS)/bin/uv
	@$(TOOLS)/bin/twine --no-color check --strict dist/*

requirements: $(TOOLS)/installers.stamp ## Write the hashes of all pins into requirements/, from the package index.
	@$(TOOLS)/bin/python -m tests.requirements $(TOOLS)/bin/uv

services: ## Install nats-server and postgresql, which some tests start, as Debian packages. Needs root.
	@.ci/services

venv: $(VENV)/dev.stamp ## Only set up .venv.
	@:

clean: ## Remove .venv, caches and build output.
	@rm -rf $(VENV) .venv-* build dist client/build client/dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@rm -rf ./*.egg-info client/*.egg-info actors/*.egg-info supervisor/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the environment ---------------------------------------------------------------------------------

define CHECK_PYTHON
test -n "$(PYTHON)" || { echo "no python3 found: set PYTHON=/path/to/python3.11"; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: set PYTHON")'
endef

# An editable install of several top folders makes every interpreter import a finder at start, 11 ms each
# time. Static paths do the same for nothing, and type checkers and editors understand them.
define STATIC_PATHS
import os, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
for finder in site.glob("__editable__*fastn_p2p*"):
    finder.unlink()
paths = (os.path.join(os.getcwd(), folder) for folder in ("", "actors", "client", "supervisor"))
site.joinpath("fastn_p2p_checkout.pth").write_text("\n".join(paths) + "\n")
endef
export STATIC_PATHS

$(BIN)/python $(TOOLS)/bin/python:
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(dir $(@D))

$(VENV)/runtime.stamp: requirements/build.txt requirements/runtime.txt $(PROJECTS) | $(BIN)/python
	@echo "setting up $(VENV) (runtime)" >&2
	@$(BIN)/python $(PIP) --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(BIN)/python $(PIP) --no-build-isolation --no-deps -e client -e .
	@$(BIN)/python -c "$$STATIC_PATHS"
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt requirements/relay.txt requirements/keyring.txt requirements/http.txt requirements/otel.txt requirements/postgres.txt requirements/nats.txt $(VENV)/runtime.stamp
	@echo "setting up $(VENV) (tests and checks)" >&2
	@$(BIN)/python $(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(TOOLS)/%.stamp: requirements/%.txt | $(TOOLS)/bin/python
	@echo "setting up $(TOOLS) ($*)" >&2
	@$(TOOLS)/bin/python $(PIP) --require-hashes -r $<
	@touch $@
