"""Python files that a command line names, as in `FILE.py:NAME`."""

import importlib.util
import pathlib
import sys
from types import ModuleType


def run(path: pathlib.Path, kind: str) -> ModuleType:
    """Run a file of configs, codecs, ... (`kind`, one word in the singular); one that fails leaves no module behind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no Python file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no {kind} file {path} (looked for {path.resolve()}).")
    spec = importlib.util.spec_from_file_location(f"openpi_user_{kind}_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
