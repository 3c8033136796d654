# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
#
# The two commands a newcomer needs are `make run` and `make test`; both install what is missing
# (Debian packages, as root or through sudo), build, and may be repeated at any time.

JOBS ?= $(shell nproc)
BUILD ?= build
CMAKE_FLAGS ?=
SHELL := /bin/bash

.PHONY: run test build setup clean help
help:
	@sed -n 's/^## //p' Makefile

## make setup   install the Debian packages that the build and the tests need
setup:
	@tools/setup

## make build   build build/towline
build: setup
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS) >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }
	@ninja -C $(BUILD) -j $(JOBS)

## make run     build, serve the demo model, print a completion and the URL
run: build
	@tools/run_demo

## make test    build and run all tests
test: build
	@tools/run_tests

## make clean   remove the build folders
clean:
	rm -rf build build-*
