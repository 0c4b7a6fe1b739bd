"""Where the golden facts and vectors of training lie."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

GOLDEN = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="session")
def facts() -> Callable[[str], Any]:
    """facts("configs") -> the content of facts/configs.json."""
    return lambda name: json.loads((GOLDEN / "facts" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], pathlib.Path]:
    """golden("checkpoint_train") -> its path; skips where that part of the set is not at hand."""
    whole = pathlib.Path(os.environ.get("OPENPI_GOLDEN_DIR") or GOLDEN.parents[2] / "shared" / "golden")

    def find(relative: str) -> pathlib.Path:
        for root in (whole / "public", whole, GOLDEN / "public"):
            if (root / relative).exists():
                return root / relative
        pytest.skip(f"golden vectors '{relative}' are not at hand; set OPENPI_GOLDEN_DIR to the whole set")

    return find
