"""Where LIBERO's environment is, for what starts its processes from another one."""

import importlib.util
import os
import pathlib
from typing import Final

VARIABLE: Final = "OPENPI_LIBERO_PYTHON"
_DEFAULT: Final = pathlib.Path(__file__).resolve().parents[3] / ".venv-libero/bin/python"


def libero_python() -> pathlib.Path:
    """The interpreter that `make setup-libero` made; $OPENPI_LIBERO_PYTHON names another.

    Raises:
        FileNotFoundError: there is none.
    """
    path = pathlib.Path(os.environ.get(VARIABLE) or _DEFAULT)
    if not path.exists():
        raise FileNotFoundError(
            f"LIBERO is not installed: there is no {path}. Run `make setup-libero` (1.2 GB), or set {VARIABLE} to the "
            "Python of an environment that has it."
        )
    return path


def has_libero() -> bool:
    """Whether this interpreter can import LIBERO."""
    return importlib.util.find_spec("libero") is not None
