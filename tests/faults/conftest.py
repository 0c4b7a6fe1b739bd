"""Collects what the fault tests measure, and lets them import `fault_world`, which lies beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER))


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Callable[[str, float], None]]:
    """Collects what was measured; `pytest -s` prints it, docs/safety.md quotes it."""
    rows: list[tuple[str, float]] = []
    yield lambda what, seconds: rows.append((what, seconds))
    for what, seconds in rows:
        print(f"\nmeasured | {what} | {seconds:.3f} s", end="")
