# `make` prints the targets. Everything they make is in .venv/, build/, install/, log/ and demo/out/.

SHELL := /bin/bash
PYTHON_VENV := .venv/bin/python
# Programs started by make find the built messages and the sourced ROS; see tools/env.sh.
WITH_ROS := source tools/env.sh &&

# Values reach the recipes through the environment ("$$NAME"), so that quotes and spaces in them are harmless.
export VIDEO EXPRESSION BOX MODEL DEVICE OUT

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint nano bench docs clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything into .venv/ and build the ROS package; skips what is done
	@tools/setup.sh

demo: setup ## track two objects through real ROS 2; VIDEO=... EXPRESSION="..." or BOX=... for your own video
	@$(WITH_ROS) $(PYTHON_VENV) -m elysium_ros.demo \
	  $(if $(VIDEO),--video "$$VIDEO") $(if $(EXPRESSION),--expression "$$EXPRESSION") $(if $(BOX),--box "$$BOX") \
	  $(if $(MODEL),--model "$$MODEL") $(if $(DEVICE),--device "$$DEVICE") $(if $(OUT),--out "$$OUT") $(ARGS)

test: setup ## run the unit and ROS tests; ARGS=... goes to pytest
	@$(WITH_ROS) $(PYTHON_VENV) -m pytest -n 2 --dist loadfile $(ARGS)

lint: setup ## check style and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

nano: setup ## train elysium-nano; ARGS="key=value ..." changes settings of its recipe
	@.venv/bin/elysium train training/nano.yaml $(ARGS)

bench: setup ## measure the node (latency, rate, memory), or another benchmark: ARGS="engine --json"
	@$(WITH_ROS) $(PYTHON_VENV) -m bench $(or $(ARGS),node)

docs: setup ## write the documentation as a web site to site/; open site/index.html
	@[ -x .venv/docs/bin/mkdocs ] || { $(PYTHON_VENV) -m venv .venv/docs && .venv/docs/bin/pip install -q -r requirements/docs.txt; }
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build -q && echo site/index.html

clean: ## remove what make setup, make demo and the tests made
	rm -rf .venv build install log demo/out site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bench elysium_core elysium_ros launch test tools -name __pycache__ -type d -prune -exec rm -rf {} +
