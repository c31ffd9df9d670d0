# Everything runs in .venv, which the first target that needs it makes from PYTHON.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DOCS_INSTALLED := $(VENV)/installed-docs

# One thread a process: studies and tests run several processes side by side.
export OMP_NUM_THREADS ?= 1
# Whatever is set outside: tests start Python over a hundred times, which would compile the package as often.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test test-all cluster gpu lint bench peers models docs release clean

help:
	@echo "make run       learn the noise of real scans on the embedded brain, and report"
	@echo "make test      lint and the tests that take seconds"
	@echo "make test-all  lint and every test"
	@echo "make cluster   the tests on a Slurm of one node and with Snakemake, where Slurm is installed"
	@echo "make gpu       the tests on a GPU, then what it takes for all there is, in nine minutes"
	@echo "make lint      ruff and mypy"
	@echo "make bench     every script in benchmarks/ but those of make gpu and make peers"
	@echo "make peers     the core beside higher, TorchOpt, Betty and learn2learn, in an environment of their own"
	@echo "make models    train the models of the package again, from MAPS=label_maps20: hours, and it goes on where it was"
	@echo "make docs      the documentation, in site/"
	@echo "make release   sdist and wheel in dist/, built and checked, not uploaded"
	@echo "make clean     remove what was built; .venv and runs stay"

run: $(INSTALLED)
	$(BIN)/metasynth prep template
	$(BIN)/metasynth run noise --preset quick

# Files side by side on all cores; a file's tests share what they make. In the order that they are collected in, which
# has the longest files first.
PYTEST := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m "not cluster and not cuda"

# Slurm is Debian's (slurmctld, slurmd, slurm-client, munge), and needs root; Snakemake has an environment of its own.
cluster: $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/snakemake
	$(VENV)/snakemake/bin/python -m pip install -qq --disable-pip-version-check snakemake==9.27.1
	$(BIN)/pytest -m cluster tests/cluster

# Where there is no GPU the tests are skipped, and the script says so and fails.
GPU_JSON ?= gpu.json

gpu: $(INSTALLED)
	$(BIN)/pytest -m cuda
	$(BIN)/python benchmarks/gpu.py --minutes 9 --json $(GPU_JSON)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	@set -e; for script in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/*.py benchmarks/data/*.py) benchmarks/processes); do echo "== $$script"; $(BIN)/python "$$script"; done

# The peers' packages lie over the project's, which stay as they are.
PEERS := $(VENV)/peers
PEERS_SETTINGS ?=
PEERS_INSTALLED := $(PEERS)/refused.json

peers: $(PEERS_INSTALLED)
	$(PEERS)/bin/python -m benchmarks.peers $(PEERS_SETTINGS)

$(PEERS_INSTALLED): $(INSTALLED) benchmarks/peers/requirements.txt benchmarks/peers/environment.py
	rm -rf $(PEERS)
	$(BIN)/python -m benchmarks.peers.environment $(PEERS)

# The models of the package: the folder of label maps they are trained on, and where their runs are kept.
MAPS ?= label_maps20
MODEL_RUNS := runs/models
MODELS ?= brain head
MODEL_SETTINGS ?= --preset standard
PREP_brain := --size 96,96
PREP_head := --head --size 128,128
SET_brain := --set segmenter.steps=14000
SET_head := --set segmenter.steps=14000 --set segmenter.widths=16,32,64,128,192
SHIPPED := metasynth/predict/models

models: $(MODELS:%=$(MODEL_RUNS)/%/report.html)
	@set -e; for name in $(MODELS); do \
	  $(BIN)/metasynth models $$name --add $(MODEL_RUNS)/$$name --card $(SHIPPED)/$$name.json; done

$(MODEL_RUNS)/%.h5: | $(INSTALLED)
	mkdir -p $(MODEL_RUNS)
	$(BIN)/metasynth prep labels $(MAPS) $(PREP_$*) --mapping freesurfer-5 --generate freesurfer-structures \
	  --axis coronal,axial,sagittal --spacing 2 --slices all --min-content 0.05 --out $@

$(MODEL_RUNS)/%/report.html: $(MODEL_RUNS)/%.h5
	if test -d $(@D); then $(BIN)/metasynth run label_maps --out $(@D) --resume; \
	else $(BIN)/metasynth run label_maps $(MODEL_SETTINGS) $(SET_$*) --set share=0.65 --set inverted=0.3 \
	  --set synthesis.priors=$(SHIPPED)/$*.priors.json --data $< --out $(@D); fi

.PRECIOUS: $(MODEL_RUNS)/%.h5

# A link or a name that leads nowhere ends the build.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

release: $(INSTALLED)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[release]'
	rm -rf build dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(INSTALLED): setup.cfg setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Error: Python 3.11 or newer is needed, $(PYTHON) is '$$($(PYTHON) --version 2>&1)'; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
