"""docs/ros.md says which arguments the stacks take, and its script is what PolicyCommander offers."""

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_bringup.stacks import ALOHA, STACKS, get_stack
from openpi_ros.commander import PolicyCommander

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "ros.md").read_text()


@pytest.mark.parametrize("argument", ALOHA.arguments, ids=lambda argument: argument.name)
def test_every_argument_is_in_the_table_as_it_is(argument) -> None:
    (row,) = re.findall(rf"^\| `{argument.name}` \|.*$", PAGE, re.MULTILINE)
    _, _, default, allowed, description, _ = (cell.strip() for cell in row.split("|"))
    assert default.strip("`") == argument.default
    assert description == argument.description
    if argument.choices:
        assert allowed == ", ".join(argument.choices)


@pytest.mark.parametrize("page", ["ros.md", "droid.md", "libero.md"])
def test_the_commands_in_the_page_are_accepted(page: str) -> None:
    commands = re.findall(r"^ +\S*openpi-up (\w+)(.*)$", (DOCS / page).read_text(), re.MULTILINE)
    assert commands
    for name, line in commands:
        stack = get_stack(name)
        given = dict(word.split(":=") for word in line.split("#")[0].split() if ":=" in word)
        stack.compose(stack.resolve(given))


def test_every_stack_is_in_the_table() -> None:
    table = PAGE.split("## Stacks")[1].split("##")[0]
    rows = dict(re.findall(r"^\| (\w+) \|[^|]*\| (\w+) \|", table, re.MULTILINE))
    policies = {name: next(a.default for a in stack.arguments if a.name == "policy") for name, stack in STACKS.items()}
    assert rows == policies


@pytest.mark.parametrize("page", ["ros.md", "droid.md"])
def test_the_script_uses_what_the_commander_has(page: str) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    used = {
        node.attr
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "robot"
    }
    assert used >= {"bring_up", "set_prompt", "run_for"}
    assert all(hasattr(PolicyCommander, name) for name in used)
