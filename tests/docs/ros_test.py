"""docs/ros.md says which arguments the stacks take, and its script is what PolicyCommander offers."""

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_bringup.stacks import ALOHA
from openpi_ros.commander import PolicyCommander

PAGE = (Path(__file__).parents[2] / "docs" / "ros.md").read_text()


@pytest.mark.parametrize("argument", ALOHA.arguments, ids=lambda argument: argument.name)
def test_every_argument_is_in_the_table_as_it_is(argument) -> None:
    (row,) = re.findall(rf"^\| `{argument.name}` \|.*$", PAGE, re.MULTILINE)
    _, _, default, allowed, description, _ = (cell.strip() for cell in row.split("|"))
    assert default.strip("`") == argument.default
    assert description == argument.description
    if argument.choices:
        assert allowed == ", ".join(argument.choices)


def test_the_commands_in_the_page_are_accepted() -> None:
    for line in re.findall(r"openpi-up aloha +(.*:=.*)", PAGE):
        given = dict(word.split(":=") for word in line.split("#")[0].split())
        ALOHA.compose(ALOHA.resolve(given))


def test_the_script_uses_what_the_commander_has() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    used = {
        node.attr
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "robot"
    }
    assert used >= {"bring_up", "set_prompt", "run_for", "state"}
    assert all(hasattr(PolicyCommander, name) for name in used)
