# Everything installs into .venv and ros2_ws/{build,install}; `make clean` removes both.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.PHONY: setup build demo test test-packages test-long lint types unit setup-libero test-libero clean

EPISODES ?= 1
POLICY ?= expert
ENV := . setup/env.sh

setup:  ## virtual environment, ROS 2 and the built workspace
	@setup/setup.sh

build:  ## the ROS workspace only
	@setup/setup.sh build

demo: setup  ## the ALOHA loop in simulation over real ROS 2; report in out/demo
	@.venv/bin/openpi-demo --episodes $(EPISODES) --policy $(POLICY)

test: setup lint types unit  ## everything that must pass

lint:
	@.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types:
	@.venv/bin/mypy

test-packages:  ## interfaces of robots' drivers, for tests only
	@setup/setup.sh test-packages

# Two processes for what shares nothing; one after the other for what runs on DDS and watches time. Those get a second
# try, which pytest reports, since other work on the machine can delay any process past a deadline.
unit: test-packages
	@$(ENV)
	python -m pytest -n 2 --dist loadfile -m "not ros and not long" $(PYTEST_ARGS)
	python -m pytest --reruns 1 -m "ros and not long" $(PYTEST_ARGS)

test-long: setup  ## soak, large fuzzing, the whole golden set
	@$(ENV)
	python -m pytest -m long $(PYTEST_ARGS)

setup-libero: setup  ## the LIBERO simulator, in an environment of its own
	@setup/setup.sh libero

test-libero: setup-libero  ## what needs LIBERO; skipped by `make test`
	@$(ENV)
	python -m pytest tests/libero -m '' $(PYTEST_ARGS)

clean:  ## removes what the other targets made
	rm -rf .venv .venv-libero ros2_ws/build ros2_ws/install ros2_ws/log out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
