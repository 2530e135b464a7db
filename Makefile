# make results/table5.csv   sets up an isolated environment, then makes the table
# make GPUS=2 CORES=8 ...   on so many GPUs and cores (default: all that there are; GPUS=0 for the CPU alone)
# make figures              every figure, into results/figures
# make report               everything, on one page (results/index.html) and as Snakemake's report (results/report.html)
# make test                 the test suite, but for what takes long
# make test-long            that: whole workflows, killed here and there
# make test-slurm           those of its tests that need SLURM, on a cluster emulated on this machine
# In an environment of your own: make SNAKEMAKE=snakemake results/table5.csv

PYTHON ?= python3
CORES ?= all
VENV := .venv
READY := $(VENV)/.ready
UV := $(shell command -v uv 2> /dev/null || echo .uv/bin/uv)
SNAKEMAKE ?= $(VENV)/bin/snakemake
RUN := $(patsubst %snakemake,%python,$(SNAKEMAKE))
# What a call changes: make results/table5.csv CONFIG="seeds=4"
CONFIG ?=
GPUS ?=
# What `make report` is about.
TARGETS ?= results/index.html
# For the shell: a text as one word, and each word of a text. Neither make nor the shell expands what a call sets.
quoted = '$(subst ','\'',$(1))'
each_quoted = $(foreach word,$(1),$(call quoted,$(word)))
SETTINGS := $(if $(value GPUS),--resources $(call each_quoted,$(addprefix gpu=,$(value GPUS))))
SETTINGS += $(if $(value CONFIG),--config $(call each_quoted,$(value CONFIG)))
# The same as options of a verb, which need not know how jobs are shared out.
OPTIONS := $(patsubst --claim_seeds=%,--claim-seeds=%,$(patsubst --folder=%,--config=%,$(addprefix --,$(filter-out ranks=% nodes=% wall_time=%,$(value CONFIG)))))
SHOWN := $(call each_quoted,$(filter-out --budget=%,$(OPTIONS)))
OPTIONS += $(patsubst %,--cores=%,$(filter-out all,$(value CORES))) $(patsubst %,--gpus=%,$(filter-out 0,$(value GPUS)))
OPTIONS := $(call each_quoted,$(OPTIONS))
unexport CONFIG CORES GPUS TARGETS
# Bytecode is cached whatever the shell says: without it, importing torch takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup figures report test test-long test-slurm lint format readme lock FORCE

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	@test -x "$(UV)" || { echo "setting up uv in .uv"; \
	  $(PYTHON) -m venv .uv || { echo "error: $(PYTHON) -m venv failed; on Debian: apt install python3-venv"; exit 1; }; \
	  .uv/bin/pip install --quiet --disable-pip-version-check uv; }
	@echo "setting up $(VENV) from requirements.lock (PyTorch for Linux brings its CUDA libraries: 6 GB)"
	@test -d $(VENV) || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --python $(VENV)/bin/python requirements.lock
	@$(UV) pip install --quiet --no-deps --python $(VENV)/bin/python -e .
	@touch $@

# An existing file is checked by Snakemake all the same. A lock that a killed Snakemake left is removed.
# What this machine lacks for it, how long it takes and how much it writes are said first; what is wrong ends it.
results/%: FORCE $(if $(filter $(VENV)/%,$(SNAKEMAKE)),$(READY))
	@$(RUN) -m selftrans unlock
	@case $(call quoted,$@) in results/INDEX.csv|*.html) ;; \
	  results/*.csv|results/figures/*) $(RUN) -m selftrans doctor $(call quoted,$(basename $*)) --quick $(OPTIONS) && \
	    $(RUN) -m selftrans plan $(call quoted,$(basename $*)) --brief $(OPTIONS);; esac
	@$(SNAKEMAKE) --cores $(call each_quoted,$(value CORES)) --quiet rules host $(SETTINGS) -- $(call quoted,$@)
	@case $(call quoted,$@) in results/INDEX.csv|results/figures/*|*.html) ;; \
	  results/*.csv) $(RUN) -m selftrans show $(SHOWN) $(call quoted,$@);; esac

figures: $(if $(filter $(VENV)/%,$(SNAKEMAKE)),$(READY))
	@$(RUN) -m selftrans unlock
	@$(RUN) -m selftrans doctor figures --quick $(OPTIONS)
	@$(RUN) -m selftrans plan figures --brief $(OPTIONS)
	@$(SNAKEMAKE) --cores $(call each_quoted,$(value CORES)) --quiet rules host $(SETTINGS) -- figures

# Snakemake's report is about targets that are there: make report TARGETS=results/table5.csv
report: $(if $(filter $(VENV)/%,$(SNAKEMAKE)),$(READY))
	@$(RUN) -m selftrans unlock
	@$(if $(filter results/index.html,$(value TARGETS)),$(RUN) -m selftrans doctor --quick $(OPTIONS))
	@$(if $(filter results/index.html,$(value TARGETS)),$(RUN) -m selftrans plan --brief $(OPTIONS))
	@$(SNAKEMAKE) --cores $(call each_quoted,$(value CORES)) --quiet rules host $(SETTINGS) -- $(call each_quoted,$(value TARGETS))
	@$(SNAKEMAKE) --quiet all --report results/report.html $(SETTINGS) -- $(call each_quoted,$(value TARGETS))
	@echo "results/report.html"

test: $(READY)
	$(VENV)/bin/python -m pytest -n auto --dist loadgroup

test-long: $(READY)
	$(VENV)/bin/python -m pytest -n auto --dist loadgroup -m long

test-slurm: $(READY)
	$(VENV)/bin/python -m pytest -m slurm tests/slurm

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/snakemake --lint

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/snakefmt Snakefile workflow

# README and docs/tables show copies of what was made, since results/ is not under version control.
readme: $(READY)
	$(VENV)/bin/python docs/refresh.py

# Pins every dependency of pyproject.toml: versions and hashes for all platforms, no addresses.
lock:
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --group dev \
	  pyproject.toml -o requirements.lock
