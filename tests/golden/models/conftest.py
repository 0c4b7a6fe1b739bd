"""Where the golden vectors of models lie."""

import os
import pathlib
from collections.abc import Callable

import pytest

IN_REPOSITORY = pathlib.Path(__file__).parents[1] / "public"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], pathlib.Path]:
    """golden("transforms/lora.npz") -> its path; skips where that part of the set is not at hand."""
    given = os.environ.get("OPENPI_GOLDEN_DIR")
    whole = pathlib.Path(given) if given else IN_REPOSITORY.parents[3] / "shared" / "golden"

    def find(relative: str) -> pathlib.Path:
        for root in (whole / "public", whole, IN_REPOSITORY):
            if (root / relative).exists():
                return root / relative
        pytest.skip(f"golden vectors '{relative}' are not at hand; set OPENPI_GOLDEN_DIR to the whole set")

    return find
