"""The launch adapter without `launch`: which entities it makes of a stack. The real ones are in aloha_launch_test."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("ament_index_python", reason="needs ROS 2: source setup/env.sh")

from openpi_bringup import stacks

NAMES = {
    "launch": ["LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"],
    "launch.actions": ["DeclareLaunchArgument", "EmitEvent", "LogInfo", "OpaqueFunction", "RegisterEventHandler"],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.events": ["Shutdown"],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}


class Entity:
    """Keeps what it was made with."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.options = options


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for module_name, names in NAMES.items():
        module = ModuleType(module_name)
        for name in names:
            setattr(module, name, type(name, (Entity,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.delitem(sys.modules, "openpi_bringup.launch_adapter", raising=False)
    adapter = importlib.import_module("openpi_bringup.launch_adapter")
    monkeypatch.delitem(sys.modules, "openpi_bringup.launch_adapter")
    return adapter


def started(adapter: ModuleType, stack: stacks.Stack = stacks.ALOHA, **given: str) -> list[Any]:
    """The nodes that the description's function makes, in order."""
    *declarations, function = adapter.describe(stack).arguments[0]
    configurations = {one.arguments[0]: one.options["default_value"] for one in declarations} | given
    context = Entity()
    context.launch_configurations = configurations
    return [one for one in function.options["function"](context) if type(one).__name__ == "Node"]


def test_every_stack_has_a_launch_file_of_its_name() -> None:
    for name, stack in stacks.STACKS.items():
        text = (Path(__file__).parents[2] / f"launch/{name}.launch.py").read_text()
        (variable,) = (key for key, value in vars(stacks).items() if value is stack)
        assert f"describe({variable})" in text


def test_every_argument_is_declared_with_its_choices(adapter: ModuleType) -> None:
    *declarations, _ = adapter.describe(stacks.ALOHA).arguments[0]
    assert [one.arguments[0] for one in declarations] == [argument.name for argument in stacks.ALOHA.arguments]
    strategy = next(one for one in declarations if one.arguments[0] == "strategy")
    assert strategy.options["choices"] == list(stacks.STRATEGIES)
    assert all(one.options["description"] for one in declarations)


def test_nodes_get_namespace_parameters_and_log_level(adapter: ModuleType) -> None:
    nodes = started(adapter, namespace="robot1", prompt="1", log_level="debug")
    assert [node.options["executable"] for node in nodes] == [
        "aloha_sim_node",
        "openpi_policy_node",
        "chunk_executor_node",
    ]
    policy = nodes[1].options
    assert policy["namespace"] == "robot1"
    file, values = policy["parameters"]
    assert file.endswith("config/aloha.yaml")
    assert values["use_sim_time"] is True
    assert values["port"] == 8000
    assert values["prompt"].arguments == ("1",)
    assert values["prompt"].options == {"value_type": str}
    assert policy["arguments"][-2:] == ["--log-level", "debug"]


def test_the_real_robot_has_no_simulator_and_wall_time(adapter: ModuleType) -> None:
    nodes = started(adapter, sim="false", policy="hold")
    assert [node.options["executable"] for node in nodes] == ["openpi_policy_node", "chunk_executor_node"]
    values = nodes[1].options["parameters"][-1]
    assert "controller" not in values  # the one of the robot's description
    assert (values["simulated"], values["dry_run"]) == (False, False)
    assert values["use_sim_time"] is False


@pytest.mark.parametrize(
    ("given", "rendered", "listens", "interval"),
    [
        ({}, False, True, 1),
        ({"render": "true"}, True, True, 1),
        ({"record": "bag"}, True, True, 1),
        ({"policy": "remote"}, True, True, None),
        ({"policy": "remote", "render": "false", "prompt": "open the drawer"}, False, False, None),
    ],
)
def test_libero_renders_for_whoever_looks_and_takes_the_tasks_instruction(
    adapter: ModuleType, given: dict[str, str], rendered: bool, listens: bool, interval: int | None
) -> None:
    simulator, policy, executor, *_ = started(adapter, stacks.LIBERO, suite="10", task="3", trial="4", **given)
    assert simulator.options["executable"] == "libero_sim_node"
    world = simulator.options["parameters"][-1]
    assert (world["suite"].arguments, world["task"], world["trial"], world["render"]) == (("10",), 3, 4, rendered)
    values = policy.options["parameters"][-1]
    assert ("prompt_topic" in values, values.get("request_interval")) == (listens, interval)
    assert executor.options["parameters"][-1]["controller"].arguments == ("forward",)
    assert all(node.options["parameters"][-1]["use_sim_time"] for node in (simulator, policy, executor))
    assert executor.options["parameters"][0].endswith("config/libero.yaml")


def test_a_wrong_task_is_a_sentence(adapter: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="task:='first' must be a whole number from 0"):
        started(adapter, stacks.LIBERO, task="first")


def test_a_wrong_value_is_a_sentence(adapter: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="port:='0' must be a port number from 1 to 65535"):
        started(adapter, port="0")


def test_rviz_gets_the_urdf_where_it_is_installed(adapter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks.Process, "missing", "")
    publisher, rviz = started(adapter, rviz="true")[-2:]
    values = publisher.options["parameters"][-1]
    assert 'joint name="follower_left/waist"' in values["robot_description"].arguments[0]
    assert rviz.options["arguments"][1].endswith("rviz/aloha.rviz")


def test_a_misspelt_argument_is_refused_and_a_stranger_is_not(adapter: ModuleType) -> None:
    assert len(started(adapter, another_launch_files_argument="1")) == 3
    with pytest.raises(RuntimeError, match="Did you mean 'strategy'"):
        started(adapter, startegy="rtc")
