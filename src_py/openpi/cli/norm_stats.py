"""Compute a config's normalisation statistics, and say what looks wrong in them."""

import dataclasses
import sys

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from openpi.cli import run_paths
from openpi.shared import normalize
from openpi.training import config as _config
from openpi.training import norm_stats


@dataclasses.dataclass(frozen=True)
class Args:
    """`openpi norm-stats CONFIG`: writes norm_stats.json where training and serving look for it.

    Attributes:
        config: name of the training config (or --config-name).
        max_frames: use so many frames, drawn at random, instead of all.
        config_name: the config, where it is not given as the first argument.
        input_path: folder of a LeRobot dataset, instead of the config's repo_id.
        output_path: folder for `assets/<dataset>/norm_stats.json`, instead of the config's own assets folder.
        skip_bad_data: leave frames out that cannot be used, and count them, instead of stopping at the first.
        num_workers: processes that read, instead of the config's number.
    """

    config: tyro.conf.Positional[str | None] = None
    max_frames: int | None = None
    config_name: str | None = None
    input_path: str | None = None
    output_path: str | None = None
    skip_bad_data: bool = False
    num_workers: int | None = None


def main(args: Args) -> int:
    """Run `openpi norm-stats`."""
    name = run_paths.config_name(args.config, args.config_name, args.input_path)
    config = run_paths.with_paths(_config.get_config(name), input_path=args.input_path)
    if args.output_path is not None:
        config = run_paths.with_stats_path(config, f"{args.output_path.rstrip('/')}/assets")
    if args.num_workers is not None:
        config = dataclasses.replace(config, num_workers=args.num_workers)
    data_config = config.data.create(config.assets_dirs, config.model)
    folder = norm_stats.output_dir(config, data_config)
    console = Console()
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Reading frames")
        stats, skipped = norm_stats.compute(
            config,
            max_frames=args.max_frames,
            on_bad="skip" if args.skip_bad_data else "raise",
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    normalize.save(folder, stats)
    console.print(_table(stats))
    _print_findings(console, data_config, stats)
    if skipped:
        console.print(f"Skipped {skipped} frames that could not be used.")
    console.print(f"Wrote {folder / normalize.FILE_NAME}", soft_wrap=True)
    _print_other_source(console, config)
    return 0


def _table(stats: dict[str, normalize.NormStats]) -> Table:
    table = Table("vector", "dim", "mean", "std", "q01", "q99")
    for key, entry in stats.items():
        for dim in range(len(entry.mean)):
            columns = (entry.mean, entry.std, entry.q01, entry.q99)
            table.add_row(key, str(dim), *("" if c is None else f"{c[dim]:.4g}" for c in columns))
    return table


def _print_findings(console: Console, data_config: _config.DataConfig, stats: dict[str, normalize.NormStats]) -> None:
    findings = norm_stats.suspicions(stats) + norm_stats.gripper_suspicions(data_config)
    if not findings:
        console.print("Nothing looks wrong.")
    for finding in findings:
        console.print(f"[yellow]Looks wrong[/]: {finding.key}[{finding.dim}] {finding.text}.", highlight=False)


def _print_other_source(console: Console, config: _config.TrainConfig) -> None:
    source = config.data.assets.assets_dir
    if source is not None and "://" in source:
        console.print(
            f"Note: {config.name} takes its statistics from {source}; to use these, train with "
            f"--data.assets.assets-dir {config.assets_dirs}.",
            soft_wrap=True,
        )
