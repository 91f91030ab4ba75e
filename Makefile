# Each target does its own set-up, so on a fresh machine `make demo` or `make test` is all there is to type.
# PYTHON names the interpreter that .venv is made from (3.11 or newer); SHARD, which part of the long runs (2/8).

PYTHON ?= python3
SHARD ?= 1/1
RUN := .venv/bin/python
REPORTS := reports

# One store of certificates for all that download: the system's, or the file that SSL_CERT_FILE names.
export UV_SYSTEM_CERTS ?= true
export NODE_USE_SYSTEM_CA ?= 1
ifdef SSL_CERT_FILE
export PIP_CERT ?= $(SSL_CERT_FILE)
export NODE_EXTRA_CA_CERTS ?= $(SSL_CERT_FILE)
endif
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-chain setup-env test lint format docs demo bench crash canary fuzz-api demo-model train-model contracts \
	contracts-long gas chain-faults audit-report real-cheats changelog clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: setup-env setup-chain ## install all that tests, demo and the rest need; quick when it is there
	@$(PYTHON) scripts/systemd.py
	@$(PYTHON) scripts/ollama.py ensure

setup-chain: setup-env ## a chain for this machine, and the contracts of Sablier, from npm
	@$(PYTHON) scripts/anvil.py ensure
	@$(PYTHON) scripts/sablier.py ensure

setup-env: ## the Python environment alone
	@$(PYTHON) scripts/environment.py

demo: setup-chain | $(REPORTS) ## a whole network on a chain: deposit, 24 prompts, a killed node, a cheat, rewards, exit
	$(RUN) -m parallelix.devnet.demo --report $(REPORTS)/demo.json

test: setup ## the test suite, against a real PostgreSQL, a real Ollama and a real chain on this machine
	@$(RUN) scripts/tests.py

lint: setup-env ## ruff and pyright (strict)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m pyright

format: setup-env ## let ruff put the code in order
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

docs: setup-env ## build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

bench: setup-env | $(REPORTS) ## coordinator speed beside LiteLLM's, measured in the same run
	$(RUN) -m bench.live --report $(REPORTS)/bench.json

crash: setup-env | $(REPORTS) ## 50 times kill -9 under load: nothing acknowledged may be lost or charged twice
	$(RUN) -m bench.crash --cycles 50 --report $(REPORTS)/crash.json

canary: setup-env | $(REPORTS) ## search everything that is stored, logged or answered for what must not be there
	$(RUN) -m bench.canary --report $(REPORTS)/canary.json

fuzz-api: setup-env | $(REPORTS) ## schemathesis against the OpenAPI document: no 5xx
	$(RUN) -m bench.fuzz_api --report $(REPORTS)/fuzz-api.json

train-model: setup-env ## train both demonstration models anew, in an environment of their own (half an hour or more)
	.venv-tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv-train
	.venv-tools/bin/uv pip install --quiet --python .venv-train --requirements models/requirements-train.txt
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 .venv-train/bin/python models/train.py --seed 1 --out models/parallelix-demo.gguf
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 .venv-train/bin/python models/train.py --seed 2 --out models/parallelix-demo-b.gguf

demo-model: setup-env | $(REPORTS) ## ask the demonstration models ten questions and measure how sure they are of their words
	$(RUN) models/evaluate.py

contracts: setup-env ## compile the contracts, write their artifacts and bindings, to be committed with the sources
	$(RUN) contracts/compile.py
	$(RUN) scripts/make_bindings.py

contracts-long: setup-chain | $(REPORTS) ## the contracts' state machines at length, resumable: make contracts-long SHARD=2/8
	$(RUN) -m bench.contracts_long --shard $(SHARD) --report $(REPORTS)/contracts-long.json

gas: setup-chain | $(REPORTS) ## what each call to the contracts costs, beside what it may cost
	$(RUN) -m bench.gas --report $(REPORTS)/gas.json --table

chain-faults: setup-chain | $(REPORTS) ## kill -9 and reorgs below a network on a chain: no wei may be lost or doubled
	$(RUN) -m bench.chain_faults --report $(REPORTS)/chain-faults.json

audit-report: setup-env | $(REPORTS) ## who cheats and how soon that is found out, over thousands of lives and whole populations
	$(RUN) -m bench.audit_report --report $(REPORTS)/audit-report.json --write-docs

real-cheats: setup ## how far honest nodes and cheats are apart on real models, in both runtimes
	$(RUN) -m bench.real_cheats --audits 400 --seed 2

changelog: setup-env ## gather changelog.d into CHANGELOG.md for a release: make changelog VERSION=0.2.0
	$(RUN) -m towncrier build --yes --version $(VERSION)

clean: ## remove what was built, keep the environments
	rm -rf site reports build dist .pytest_cache .ruff_cache .hypothesis

$(REPORTS):
	@mkdir -p $@
