"""Marks the fault tests, collects what they measure, and lets them import `fault_world`, which lies beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.ros)


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Callable[[str, float], None]]:
    """Collects what was measured; `pytest -s` prints it, docs/safety.md quotes it."""
    rows: list[tuple[str, float]] = []
    yield lambda what, seconds: rows.append((what, seconds))
    for what, seconds in rows:
        print(f"\nmeasured | {what} | {seconds:.3f} s", end="")
