"""Hold our models against golden vectors: the error of every output, and its bound.

The exit status is 1 if one is past its bound.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from openpi.golden.compare import Check
    from openpi.golden.folder import GoldenFolder


@dataclass(frozen=True)
class Args:
    """What to verify."""

    dir: Annotated[Path, tyro.conf.Positional]
    """A folder of golden vectors, or a folder of such folders."""
    precision: Literal["all", "f32", "bf16", "bf16_params"] = "all"
    """Only the outputs of one precision."""


def main(args: Args) -> int:
    """Verify every folder and print a table for each."""
    import rich

    from openpi.golden import compare

    failed = 0
    for folder in _golden_folders(args.dir):
        for precision in folder.precisions:
            if args.precision in ("all", precision):
                checks = compare.verify(folder, precision)
                rich.print(_table(f"{folder.path.name} {precision}", checks))
                failed += sum(not check.passed for check in checks)
    print("All outputs are within their bounds." if not failed else f"{failed} outputs are past their bounds.")
    return min(failed, 1)


def _golden_folders(path: Path) -> list["GoldenFolder"]:
    from openpi.golden.folder import GoldenFolder

    inner = [] if (path / "meta.json").exists() else sorted(meta.parent for meta in path.glob("*/meta.json"))
    return [GoldenFolder(folder) for folder in inner or [path]]


def _table(title: str, checks: list["Check"]) -> "Table":
    from rich.table import Table

    table = Table("output", "error", "bound", "", title=title, title_justify="left")
    for check in checks:
        verdict = "ok" if check.passed else "[bold red]past its bound"
        table.add_row(check.name, f"{check.error:.3g}", f"{check.bound:.3g}", verdict)
    return table
