"""Tests with the real LIBERO: skipped where it is not installed, run by `make test-libero` where it is."""

from pathlib import Path

import pytest

from openpi_sim.libero.interpreter import libero_python

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        libero_python()
        mark = pytest.mark.long
    except FileNotFoundError as error:
        mark = pytest.mark.skip(reason=str(error))
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(mark)
