"""Show what a config, a checkpoint or a robot is: shapes, parameters, memory, statistics, limits."""

import dataclasses
import difflib
import json
import logging
import pathlib
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.tree import Tree


@dataclasses.dataclass(frozen=True)
class Args:
    """`openpi info` lists the configs; `openpi info TARGET` shows one config, checkpoint or robot.

    Attributes:
        target: a config's name, FILE.py:NAME, the folder or URL of a checkpoint or a training run, or a robot: its
            name in config/robots, or FILE.yaml.
        json: print JSON instead of tables.
    """

    target: Annotated[str, tyro.conf.Positional] = ""
    json: bool = False


def main(args: Args) -> int:
    """Run `openpi info`."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of files that released checkpoints do not have
    facts = gather(args.target)
    if args.json:
        print(json.dumps(facts, indent=2, default=str))
    else:
        show(facts, Console())
    return 0


def gather(target: str) -> dict[str, Any]:
    """The facts about `target`, or all configs for "".

    Raises:
        ValueError: it is neither a config, a checkpoint nor a robot, or the robot's description is wrong.
    """
    from openpi_runtime import robots

    if target.endswith((".yaml", ".yml")) or target in robots.available_robots():
        from openpi_runtime.robot_facts import robot_facts

        return robot_facts(robots.load_robot(target))
    from openpi.shared import download
    from openpi.training import config as _config
    from openpi.training import facts

    if not target:
        return {"configs": {name: _line(_config.get_config(name)) for name in _config.config_names()}}
    if target in _config.config_names() or ".py" in target:
        return facts.config_facts(_config.get_config(target))
    if "://" in target or pathlib.Path(target).expanduser().is_dir():
        return facts.checkpoint_facts(download.maybe_download(target))
    near = difflib.get_close_matches(target, _config.config_names(), n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else "`openpi info` lists the configs."
    raise ValueError(f"There is neither a config nor a folder '{target}'. {hint}")


def show(facts: dict[str, Any], console: Console) -> None:
    """Print the facts: the list of configs as a table, all else as a tree."""
    if "configs" in facts:
        table = Table("config", "model", "data", box=None)
        for name, line in facts["configs"].items():
            table.add_row(name, line["model"], line["data"])
        console.print(table)
        return
    key, title = next(iter(facts.items()))
    tree = Tree(f"[bold]{key} {title}[/bold]")
    for name, value in list(facts.items())[1:]:
        _grow(tree, name, value)
    console.print(tree)


def _grow(tree: Tree, name: str, value: Any) -> None:
    if isinstance(value, dict):
        branch = tree.add(f"[bold]{name}[/bold]" + ("" if value else " none"))
        for key, item in value.items():
            _grow(branch, key, item)
    else:
        tree.add(f"[cyan]{name}[/cyan] {_escaped(value)}")


def _escaped(value: Any) -> str:
    # rich takes [a] for markup.
    return str(value).replace("[", "\\[")


def _line(config: Any) -> dict[str, str]:
    repo = config.data.repo_id if isinstance(config.data.repo_id, str) else "serving only"
    return {"model": config.model.model_type.value, "data": f"{type(config.data).__name__} ({repo})"}
