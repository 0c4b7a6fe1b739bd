"""Train a config: openpi train CONFIG --exp-name NAME [--overwrite|--resume] [--any.field value]."""

import dataclasses
import logging
import os
import sys

import tyro

from openpi.cli import run_paths
from openpi.training.train_config import TrainConfig

Args = TrainConfig


@dataclasses.dataclass(frozen=True)
class _Paths:
    """The part of the command line that is not the config's own."""

    config_name: str | None = None
    input_path: str | None = None
    stats_path: str | None = None
    output_path: str | None = None


def parse(argv: list[str]) -> TrainConfig:
    """The config that the command line names, with its fields, paths and flags put in.

    Beside every field of the config there are --config-name, --input-path (folder of a LeRobot dataset),
    --stats-path (folder with <asset id>/norm_stats.json) and --output-path (folder for checkpoints). Flags also take
    True and False: --resume True.
    """
    argv = [_plain_flag(argument) for argument in _joined_booleans(argv)]
    argv = [argument for argument in argv if argument]
    positional = argv.pop(0) if argv and not argv[0].startswith("-") else None
    paths, rest = tyro.cli(_Paths, args=argv, return_unknown_args=True, add_help=False)
    from openpi.training import config as _config

    if positional is None and paths.config_name is None and any(a in ("-h", "--help") for a in rest):
        return _config.cli(args=["--help"], prog="openpi train")
    name = run_paths.config_name(positional, paths.config_name, paths.input_path)
    config = _config.get_config(name)
    base = run_paths.with_paths(
        config, input_path=paths.input_path, stats_path=paths.stats_path, output_path=paths.output_path
    )
    return _config.override(base, rest, prog=f"openpi train {name}")


def _joined_booleans(argv: list[str]) -> list[str]:
    """`--resume True` as `--resume=True`."""
    joined: list[str] = []
    for argument in argv:
        if argument in ("True", "False") and joined and joined[-1].lstrip("-") in ("resume", "overwrite"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _plain_flag(argument: str) -> str:
    """`--resume=True` as `--resume`, and nothing for `--resume=False`."""
    for flag in ("--resume", "--overwrite"):
        if argument.startswith(f"{flag}="):
            return flag if argument.endswith("=True") else ""
    return argument


def main(args: TrainConfig) -> int:
    """Run `openpi train`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    import jax

    join_other_processes()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/jax"))
    from openpi.training import train_loop

    state = train_loop.train(args)
    print(f"Done: {int(state.step)} steps. Checkpoints are in {args.checkpoint_dir}", file=sys.stderr)
    return 0


def join_other_processes() -> None:
    """With JAX_COORDINATOR_ADDRESS set, run as one of JAX_NUM_PROCESSES processes, number JAX_PROCESS_ID.

    Raises:
        ValueError: one of the two other variables is missing.
    """
    import jax

    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        return
    try:
        count, number = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    except KeyError as error:
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS is set but {error.args[0]} is not; several processes need both "
            f"JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from error
    jax.distributed.initialize(address, num_processes=count, process_id=number)
