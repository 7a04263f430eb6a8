#!/usr/bin/env bash
# Runs a command with the built package in the environment; what the image starts with.
# Read from the environment: ELYSIUM_SETUP, the script that makes it so.
set -eo pipefail
# shellcheck disable=SC1090 - known when it runs
source "${ELYSIUM_SETUP:-/opt/elysium/install/setup.bash}"
exec "$@"
