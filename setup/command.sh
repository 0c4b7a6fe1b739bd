#!/usr/bin/env bash
# Runs the command of this name (openpi, openpi-up, openpi-demo) in the project's environment; installed by setup/setup.sh.
_self="$(readlink -f "${BASH_SOURCE[0]}")"
. "$(dirname "$_self")/../../setup/env.sh"
case "$(basename "$_self")" in
    openpi) exec python -m openpi "$@" ;;
    openpi-up) exec python -m openpi_bringup.up "$@" ;;
    openpi-demo) exec python -m openpi_ros.demo "$@" ;;
esac
