# `make` prints the targets. Everything that is made lies in .venv/, build/, install/, log/ and demo/out/.

SHELL := /bin/bash
PYTHON_VENV := .venv/bin/python
# A program started by make finds the built messages and the ROS that is sourced; see tools/env.sh.
WITH_ROS := source tools/env.sh &&

# Values are handed to the recipes through the environment ("$$NAME"), so that quotes and spaces in them are harmless.
export VIDEO EXPRESSION BOX MODEL DEVICE OUT

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint nano bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything into .venv/ and build the ROS package (only what is not done yet)
	@tools/setup.sh

demo: setup ## follow named objects through real ROS 2; VIDEO=... EXPRESSION="..." or BOX=... for your own video
	@$(WITH_ROS) $(PYTHON_VENV) -m elysium_ros.demo \
	  $(if $(VIDEO),--video "$$VIDEO") $(if $(EXPRESSION),--expression "$$EXPRESSION") $(if $(BOX),--box "$$BOX") \
	  $(if $(MODEL),--model "$$MODEL") $(if $(DEVICE),--device "$$DEVICE") $(if $(OUT),--out "$$OUT") $(ARGS)

test: setup ## run the unit and ROS tests; ARGS=... goes to pytest
	@$(WITH_ROS) $(PYTHON_VENV) -m pytest -n 2 --dist loadfile $(ARGS)

lint: setup ## check style and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

nano: setup ## train elysium-nano by its recipe; ARGS="key=value ..." changes it
	@.venv/bin/elysium train training/nano.yaml $(ARGS)

bench: setup ## measure the node: latency, rate, memory; or another benchmark: ARGS="engine --json"
	@$(WITH_ROS) $(PYTHON_VENV) -m bench $(or $(ARGS),node)

clean: ## remove everything that make setup and make demo made
	rm -rf .venv build install log demo/out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find elysium_core elysium_ros launch test tools -name __pycache__ -type d -prune -exec rm -rf {} +
