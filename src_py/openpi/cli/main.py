"""`openpi COMMAND ...`: finds the command's module, parses its arguments, runs it.

A command is a module with a one-line docstring (shown by `openpi --help`), a frozen dataclass `Args` that tyro reads,
and `main(args: Args) -> int`, whose result is the exit status. A module that needs another way to read its arguments
has `parse(argv: list[str]) -> Args` as well. Other packages add commands with entry points of the group
`openpi.commands`, named like `bench.executor` for `openpi bench executor`.

Exit status: what the command returns; 1 for an error, 2 for a wrong command line, 130 for an interrupt.
"""

import ast
import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

COMMANDS = {
    "serve": "openpi.cli.serve",
    "serve-sessions": "openpi.cli.serve_sessions",
    "train": "openpi.cli.train",
    "norm-stats": "openpi.cli.norm_stats",
    "convert jax-to-torch": "openpi.cli.convert_jax_to_torch",
    "convert bag-to-lerobot": "openpi.cli.convert_bag_to_lerobot",
    "convert aloha-hdf5-to-lerobot": "openpi.cli.convert_aloha_hdf5_to_lerobot",
    "convert recordings-to-lerobot": "openpi.cli.convert_recordings_to_lerobot",
    "compare": "openpi.cli.compare",
    "eval bag": "openpi.cli.eval_bag",
    "bench model": "openpi.cli.bench_model",
    "bench pipeline": "openpi.cli.bench_pipeline",
    "bench server": "openpi.cli.bench_server",
    "bench loader": "openpi.cli.bench_loader",
    "bench executor": "openpi.cli.bench_executor",
    "bench strategies": "openpi.cli.bench_strategies",
    "info": "openpi.cli.info",
    "verify": "openpi.cli.verify",
    "fetch-tokenizer": "openpi.cli.fetch_tokenizer",
    "doctor": "openpi.cli.doctor",
    "trace": "openpi.cli.trace",
}

ENTRY_POINT_GROUP = "openpi.commands"
# Errors whose message is written for the user; anything else is a bug and keeps its traceback.
EXPECTED_ERRORS = (ValueError, OSError, ImportError)


class UsageError(Exception):
    """The command line names no command."""


def available_commands() -> dict[str, str]:
    """Command -> module, for every module that is there; entry points add to and replace the table's rows."""
    table = {name: module for name, module in COMMANDS.items() if _source_of(module) is not None}
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if _source_of(point.module) is not None:
            table[point.name.replace(".", " ")] = point.module
    return table


def _source_of(module: str) -> str | None:
    """The file of `module`, found without importing it; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    return spec.origin if spec else None


def _summary(module: str) -> str:
    source = _source_of(module)
    if source is None:
        return ""
    docstring = ast.get_docstring(ast.parse(Path(source).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def overview(table: dict[str, str], group: str = "") -> str:
    """The help text: the commands of `group` (all of them for ""), one a line."""
    rows = {name: module for name, module in sorted(table.items()) if name.startswith(group)}
    width = max(map(len, rows), default=0)
    lines = [f"  {name:<{width}}  {_summary(module)}" for name, module in rows.items()]
    prog = f"openpi {group}".rstrip()
    return "\n".join([f"usage: {prog} COMMAND [options]", "", *lines, "", "openpi COMMAND --help shows its options."])


def find_command(argv: list[str], table: dict[str, str]) -> tuple[str, list[str]]:
    """Split argv into the longest command it starts with and the arguments left.

    Raises:
        UsageError: argv starts with no command; the message names the nearest ones.
    """
    for length in (2, 1):
        name = " ".join(argv[:length])
        if len(argv) >= length and name in table:
            return name, argv[length:]
    raise UsageError(_unknown(argv, table))


def _unknown(argv: list[str], table: dict[str, str]) -> str:
    words = [word for word in argv[:2] if not word.startswith("-")]
    asked = " ".join(words)
    names = [*table, *sorted({name.split()[0] for name in table if " " in name})]
    near = difflib.get_close_matches(asked, names, n=3, cutoff=0.5)
    near = near or difflib.get_close_matches(words[0] if words else argv[0], names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(f'`openpi {name}`' for name in near)}?" if near else ""
    return f"There is no command `openpi {asked or argv[0]}`.{hint} `openpi --help` lists all commands."


def _group(argv: list[str], table: dict[str, str]) -> str | None:
    """The group (`bench`, `convert`, or "" for all) whose overview argv asks for, if it asks for one."""
    words, rest = argv[:1], argv[1:]
    if not words or words[0] in ("-h", "--help"):
        return ""
    is_group = any(name.startswith(words[0] + " ") for name in table) and words[0] not in table
    return f"{words[0]} " if is_group and (not rest or rest[0] in ("-h", "--help")) else None


def run(module: ModuleType, name: str, argv: list[str]) -> int:
    """Parse argv for the command in `module` and run it."""
    if hasattr(module, "parse"):
        return int(module.main(module.parse(argv)) or 0)
    import tyro

    description = (module.__doc__ or "").strip()
    args = tyro.cli(module.Args, args=argv, prog=f"openpi {name}", description=description)
    return int(module.main(args) or 0)


def dispatch(argv: list[str]) -> int:
    """Run the command that argv names and return the exit status; errors for the user become sentences on stderr."""
    table = available_commands()
    group = _group(argv, table)
    if group is not None:
        print(overview(table, group))
        return 0 if argv else 2
    try:
        name, rest = find_command(argv, table)
        return run(importlib.import_module(table[name]), name, rest)
    except UsageError as error:
        print(f"openpi: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except EXPECTED_ERRORS as error:
        if os.environ.get("OPENPI_TRACEBACK"):
            raise
        print(f"openpi: {error}\n(OPENPI_TRACEBACK=1 shows where it came from)", file=sys.stderr)
        return 1


def main() -> None:
    """Console script `openpi`."""
    try:
        status = dispatch(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader (`| head`) left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
