"""A robot's kinematics, where its URDF and its YAML description fit together."""

from __future__ import annotations

from collections.abc import Sequence

from openpi_runtime import located_yaml, paths
from openpi_runtime.kinematics import Kinematics, urdf_joints
from openpi_runtime.located_yaml import Entry
from openpi_runtime.robots import Column, Group, RobotSpec


def robot_kinematics(robot: RobotSpec) -> Kinematics:
    """The kinematic tree of a robot's URDF, which has everything that the description names in it.

    Raises:
        SpecError: the description names a URDF, a joint or a frame that is not there, gives a joint another unit, keeps
            more of its range than there is, or rests beyond it (file, line, field, value, what is allowed).
    """
    description = located_yaml.load(robot.source)
    top = description.entries()
    if not robot.urdf_path.is_file():
        raise top["urdf"].wrong(f"a URDF or xacro file beside the description or in {paths.urdf_dir()}")
    kinematics = Kinematics.from_file(robot.urdf_path)
    for entry, group in zip(top["groups"].items(), robot.groups, strict=True):
        _check_group(entry.entries(), robot, group, kinematics)
    for field, columns in (("state", robot.state), ("action", robot.action)):
        _check_units(top[field], columns, robot, kinematics)
    _check_margin(description, robot, kinematics)
    if "rest" in top:
        _check_rest(top["rest"], robot, kinematics)
    return kinematics


def _check_group(fields: dict[str, Entry], robot: RobotSpec, group: Group, kinematics: Kinematics) -> None:
    if not group.pose:  # else the controller has the kinematics
        _check_joints(fields["joints"], robot, group, kinematics)
    if group.end_effector and not kinematics.has_frame(group.end_effector):
        raise fields["end_effector"].wrong(f"a link or joint of {robot.urdf_path.name}")


def _check_joints(joints: Entry, robot: RobotSpec, group: Group, kinematics: Kinematics) -> None:
    needed = urdf_joints(robot)
    for entry, joint in zip(joints.items(), group.joints, strict=True):
        name = group.urdf_prefix + joint
        if name in needed and name not in kinematics.joint_names:
            known = ", ".join(kinematics.joint_names)
            raise entry.wrong(f"joints of the URDF, less urdf_prefix {group.urdf_prefix!r}; it has {known}")


def _check_units(entry: Entry, columns: Sequence[Column], robot: RobotSpec, kinematics: Kinematics) -> None:
    for item, column in zip(entry.items(), columns, strict=True):
        joint = robot.group(column.group).urdf_prefix + column.joint
        if column.unit in ("rad", "m") and joint in kinematics.joint_names and column.unit != kinematics.unit(joint):
            raise item.entries()["unit"].wrong(f"{kinematics.unit(joint)}, since the URDF's {joint} is measured in it")


def _check_margin(description: Entry, robot: RobotSpec, kinematics: Kinematics) -> None:
    joints = urdf_joints(robot)
    lower, upper, _ = kinematics.limits(joints)
    for joint, room in zip(joints, (upper - lower) / 2, strict=True):
        if room <= robot.limits.position_margin:
            limits = description.entries().get("limits", description)
            must = f"limits.position_margin must be less than {room:g}, and is {robot.limits.position_margin:g}"
            raise limits.error(f"leaves nothing of the URDF's range of {joint}; {must}")


def _check_rest(entry: Entry, robot: RobotSpec, kinematics: Kinematics) -> None:
    for item, column, value in zip(entry.items(), robot.state, robot.rest, strict=True):
        joint = robot.group(column.group).urdf_prefix + column.joint
        if joint not in kinematics.joint_names:
            continue
        (lower,), (upper,), _ = kinematics.limits([joint])
        if not lower <= value <= upper:
            raise item.wrong(f"{lower:g} to {upper:g}, the range of {joint} in the URDF")
