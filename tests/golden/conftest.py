"""Where the golden facts and vectors lie."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def facts() -> Callable[[str], Any]:
    """facts("configs") -> the content of facts/configs.json."""
    return lambda name: json.loads((HERE / "facts" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], pathlib.Path]:
    """golden("policy/aloha_pi0") -> its path: in the whole set where it is at hand, else in the part that is in the
    repository; skips where neither has it."""
    whole = pathlib.Path(os.environ.get("OPENPI_GOLDEN_DIR") or HERE.parents[2] / "shared" / "golden")

    def find(relative: str) -> pathlib.Path:
        for root in (whole / "public", whole, HERE / "public"):
            if (root / relative).exists():
                return root / relative
        pytest.skip(f"golden vectors '{relative}' are not at hand; set OPENPI_GOLDEN_DIR to the whole set")

    return find
