"""A stack as a launch description. Imported by launch files only: it needs `launch` and `launch_ros`."""

import difflib
from collections.abc import Mapping
from typing import Any

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity  # type: ignore[attr-defined]
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from openpi_bringup.stack import Argument, Process, Stack, StackError, Values


def describe(stack: Stack) -> LaunchDescription:
    """Declares the stack's arguments and starts its processes; one that ends ends them all."""

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        try:
            values = stack.resolve(_given(stack, context.launch_configurations))
            processes = stack.processes(values)
        except StackError as error:
            raise RuntimeError(str(error)) from error
        return [entity for process in processes for entity in _entities(process, values)]

    return LaunchDescription(
        [*(_declaration(argument) for argument in stack.arguments), OpaqueFunction(function=start)]
    )


def _given(stack: Stack, configurations: Mapping[str, str]) -> dict[str, str]:
    """The stack's arguments, and those that look like a misspelt one: `launch` itself takes any name silently.

    Other names belong to a launch file that includes this one.
    """
    names = [argument.name for argument in stack.arguments]
    near = {name for name in configurations if difflib.get_close_matches(name, names, n=1, cutoff=0.8)}
    return {name: configurations[name] for name in near.union(names)}


def _declaration(argument: Argument) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        argument.name,
        default_value=argument.default,
        description=argument.description,
        choices=list(argument.choices) or None,
    )


def _entities(process: Process, values: Values) -> list[LaunchDescriptionEntity]:
    if process.missing:
        return [LogInfo(msg=process.missing)]
    node = Node(
        package=process.package,
        executable=process.executable,
        name=process.executable,
        namespace=values["namespace"],
        parameters=[
            *(str(path) for path in process.parameter_files),
            {"use_sim_time": values["use_sim_time"] == "true"} | _typed(process.parameters),
        ],
        remappings=list(process.remaps.items()),
        arguments=[*process.arguments, "--ros-args", "--log-level", values["log_level"]],
        output="screen",
        emulate_tty=True,
    )
    reason = f"{process.executable} ended"
    stop_all = OnProcessExit(target_action=node, on_exit=[EmitEvent(event=Shutdown(reason=reason))])
    return [node, RegisterEventHandler(stop_all)]


def _typed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Texts stay texts: launch_ros would read a prompt such as "1" or a URDF as YAML."""
    return {k: ParameterValue(v, value_type=str) if isinstance(v, str) else v for k, v in parameters.items()}
