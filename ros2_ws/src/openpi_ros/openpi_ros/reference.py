"""The parameters of all nodes and the arguments of all stacks as Markdown: `python -m openpi_ros.reference`.

docs/ros-parameters.md is its output; a test holds them together.
"""

from collections.abc import Iterable
from importlib import resources

from openpi_ros.parameters import ParameterSpec, load_specs


def parameter_tables() -> str:
    """One table a node, from `parameters/*.yaml`."""
    folder = resources.files("openpi_ros").joinpath("parameters")
    nodes = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith("_node.yaml"))
    parts = ["# Parameters", "", "Every node also takes `autostart` and what rclpy declares (`use_sim_time`).", ""]
    for node in nodes:
        parts += [f"## {node}", "", *_table(load_specs(node).values()), ""]
    return "\n".join(parts)


def _table(specs: Iterable[ParameterSpec]) -> list[str]:
    rows = [f"| `{s.name}` | `{s.default!r}` | {s.allowed()} | {' '.join(s.description.split())} |" for s in specs]
    return ["| parameter | default | allowed | what it does |", "|---|---|---|---|", *rows]


if __name__ == "__main__":
    print(parameter_tables(), end="")
