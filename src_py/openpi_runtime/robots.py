"""What a robot is: joints, topics, cameras, columns of state and action, limits. One YAML file each."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TypeVar

from openpi_runtime import located_yaml, paths
from openpi_runtime.grippers import Gripper, Span, parse_gripper, parse_span
from openpi_runtime.located_yaml import Entry, SpecError
from openpi_runtime.observations import ObservationLayout, parse_layout, plain_layout

# Kind of controller -> the fields it needs, and those it may have.
CONTROLLERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "joint_trajectory": (("topic",), ()),
    "forward": (("topic",), ("interface",)),
    "franka": (("topic",), ()),
    "interbotix": (("group_topic", "single_topic", "group"), ()),
}
INTERFACES = ("position", "velocity")
ROLES = ("base", "left_wrist", "right_wrist", "extra")
UNITS = ("rad", "m", "none")  # of joints; a gripper's is "gripper"
KINDS = ("absolute", "relative", "velocity", "delta")
POSE_AXES = ("x", "y", "z", "rx", "ry", "rz")
"""Coordinates of an end effector's pose: position [m], orientation as axis-angle [rad]."""
_OPTIONAL = (
    *("description", "default_prompt", "gripper_convention", "limits", "rest", "velocity_step", "controller"),
    "observation",
)

Named = TypeVar("Named", "Group", "Camera", "Column")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Joints that share one joint-state topic and one controller: an arm.

    Attributes:
        joints: what is commanded besides the gripper; with a pose topic, the coordinates `POSE_AXES`.
        pose: topic of the end effector's pose; empty where joints are commanded.
        sensed: further entries of the joint states that the state shows and nothing commands.
    """

    name: str
    joints: tuple[str, ...]
    urdf_prefix: str
    end_effector: str
    joint_states: str
    gripper: Gripper | None
    controllers: dict[str, dict[str, str]]
    pose: str = ""
    sensed: tuple[str, ...] = ()

    def source(self, joint: str) -> str:
        """The topic that measures a joint, a coordinate of the pose or the gripper."""
        return self.pose if self.pose and joint in POSE_AXES else self.joint_states

    @property
    def command_joints(self) -> tuple[str, ...]:
        """Names of what a command to this group holds, in order: the joints, then the gripper."""
        return (*self.joints, self.gripper.name) if self.gripper else self.joints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera: where its images come from and what a policy takes it for."""

    name: str
    topic: str
    info_topic: str
    frame: str
    role: str
    required: bool
    compressed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the state or action vector."""

    name: str
    unit: str
    group: str
    joint: str
    kind: str = "absolute"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitRules:
    """How command limits follow from the URDF's.

    Attributes:
        position_margin: rad kept from each end of the URDF's range.
        velocity_scale: part of the URDF's velocity limit that is used.
        acceleration: rad/s^2; a URDF has no such limit.
        gripper_velocity: runtime units per second.
    """

    position_margin: float = 0.005
    velocity_scale: float = 1.0
    acceleration: float = 150.0
    gripper_velocity: float = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """A robot as policy node, executor, recorder and converters see it; see config/robots/*.yaml.

    Attributes:
        controller: kind of controller that commands the real robot, one of those of every group.
        observation: how a policy is sent the cameras and the state.
        rest: a state [n] in which the robot stands safely, in the order of the state columns; zeros if not given.
        source: the YAML file.
        velocity_step: displacement in rad that a "velocity" of 1 asks for in one control step; 0 without such columns.
    """

    name: str
    description: str
    rate_hz: float
    executed_steps: int
    urdf: str
    default_prompt: str
    gripper_convention: Span
    groups: tuple[Group, ...]
    cameras: tuple[Camera, ...]
    state: tuple[Column, ...]
    action: tuple[Column, ...]
    limits: LimitRules
    rest: tuple[float, ...]
    controller: str
    observation: ObservationLayout
    source: Path
    velocity_step: float = 0.0

    @property
    def period_ns(self) -> int:
        """Time between two control steps in nanoseconds."""
        return round(1e9 / self.rate_hz)

    @property
    def action_names(self) -> tuple[str, ...]:
        """The action columns' names, as a chunk carries them."""
        return tuple(column.name for column in self.action)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The state columns' names."""
        return tuple(column.name for column in self.state)

    @property
    def joint_topics(self) -> tuple[str, ...]:
        """Topics of joint states, each once."""
        return tuple(dict.fromkeys(group.joint_states for group in self.groups))

    @property
    def pose_topics(self) -> tuple[str, ...]:
        """Topics of end effector poses."""
        return tuple(group.pose for group in self.groups if group.pose)

    @property
    def urdf_path(self) -> Path:
        """The URDF or xacro file: absolute, or in the folder `urdf/`."""
        return paths.urdf_dir() / self.urdf

    def group(self, name: str) -> Group:
        """The group of that name."""
        return next(group for group in self.groups if group.name == name)

    def group_columns(self, group: Group) -> list[int]:
        """Action columns of a group, in the order of `group.command_joints`."""
        place = {(column.group, column.joint): i for i, column in enumerate(self.action)}
        return [place[group.name, joint] for joint in group.command_joints]

    def is_gripper(self, column: Column) -> bool:
        """Whether the column is a gripper, in runtime units."""
        gripper = self.group(column.group).gripper
        return gripper is not None and column.joint == gripper.name


def available_robots() -> list[str]:
    """Names of the robots in config/robots, sorted."""
    return sorted(path.stem for path in (paths.config_dir() / "robots").glob("*.yaml"))


def load_robot(name_or_path: str | Path) -> RobotSpec:
    """Loads a robot by its name in config/robots or by the path of its YAML file.

    Raises:
        SpecError: there is no such robot, or its file is wrong (file, line, field, value, allowed values).
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = paths.config_dir() / "robots" / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(available_robots()) or "none"
            raise SpecError(
                f"There is no robot {str(name_or_path)!r}; known: {known}. A path to a YAML file works too."
            )
    return _parse(path.resolve(), path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=16)
def _parse(path: Path, _modified: int) -> RobotSpec:
    top = located_yaml.load(path).mapping(
        required=("name", "rate_hz", "executed_steps", "urdf", "groups", "cameras", "state", "action"),
        optional=_OPTIONAL,
    )
    convention = parse_span(top["gripper_convention"]) if "gripper_convention" in top else Span(closed=0.0, open=1.0)
    groups = _unique(tuple(_group(entry, convention) for entry in top["groups"].items()), top["groups"])
    state = _columns(top["state"], groups)
    action = _commanded(_columns(top["action"], groups, commanded=True), top["action"], groups)
    _check_relative(action, state, top["action"])
    cameras = _unique(tuple(_camera(entry) for entry in top["cameras"].items()), top["cameras"])
    return RobotSpec(
        name=top["name"].text(),
        description=_text(top, "description"),
        rate_hz=top["rate_hz"].number(0.1, 1000.0),
        executed_steps=top["executed_steps"].integer(1, 1000),
        urdf=_urdf(top["urdf"], path),
        default_prompt=_text(top, "default_prompt"),
        gripper_convention=convention,
        groups=groups,
        cameras=cameras,
        state=state,
        action=action,
        limits=_limits(top["limits"]) if "limits" in top else LimitRules(),
        rest=_rest(top, len(state)),
        controller=_chosen_controller(top, groups),
        observation=_observation(top, cameras, state),
        source=path,
        velocity_step=_velocity_step(top, action),
    )


def _text(entries: dict[str, Entry], name: str, default: str = "") -> str:
    return entries[name].text() if name in entries else default


def _urdf(entry: Entry, description: Path) -> str:
    """The file beside the description where there is one, else as it is given."""
    beside = description.parent / entry.text()
    return str(beside) if beside.is_file() else entry.text()


def _rest(top: dict[str, Entry], size: int) -> tuple[float, ...]:
    if "rest" not in top:
        return (0.0,) * size
    values = tuple(entry.number(-1e3, 1e3) for entry in top["rest"].items())
    if len(values) != size:
        raise top["rest"].error(f"has {len(values)} values; allowed: {size}, one for each state column")
    return values


def _chosen_controller(top: dict[str, Entry], groups: tuple[Group, ...]) -> str:
    """The one that is named, else the first that every group has."""
    shared = tuple(name for name in groups[0].controllers if all(name in group.controllers for group in groups))
    if not shared:
        raise top["groups"].error(f"share no controller; allowed: one of {', '.join(CONTROLLERS)} in every group")
    return top["controller"].text(shared) if "controller" in top else shared[0]


def _observation(top: dict[str, Entry], cameras: tuple[Camera, ...], state: tuple[Column, ...]) -> ObservationLayout:
    if "observation" in top:
        return parse_layout(top["observation"], cameras, state)
    return plain_layout(cameras, state)


def _velocity_step(top: dict[str, Entry], action: tuple[Column, ...]) -> float:
    if "velocity_step" in top:
        return top["velocity_step"].number(1e-6, 10.0)
    if any(column.kind == "velocity" for column in action):
        raise top["action"].error("has columns of kind 'velocity', so the file must give velocity_step (rad a step)")
    return 0.0


def _group(entry: Entry, convention: Span) -> Group:
    fields = entry.mapping(
        required=("name", "joint_states", "controllers"),
        optional=("joints", "pose", "sensed", "urdf_prefix", "end_effector", "gripper"),
    )
    if ("joints" in fields) == ("pose" in fields):
        raise entry.error("must have either 'joints' or 'pose': joints are commanded as targets, a pose by deltas")
    controllers = fields["controllers"].mapping(optional=tuple(CONTROLLERS))
    return Group(
        name=fields["name"].text(),
        joints=tuple(joint.text() for joint in fields["joints"].items()) if "joints" in fields else POSE_AXES,
        urdf_prefix=_text(fields, "urdf_prefix"),
        end_effector=_text(fields, "end_effector"),
        joint_states=fields["joint_states"].relative_name(),
        gripper=parse_gripper(fields["gripper"], convention) if "gripper" in fields else None,
        controllers={name: _controller(name, topics) for name, topics in controllers.items()},
        pose=fields["pose"].relative_name() if "pose" in fields else "",
        sensed=tuple(joint.text() for joint in fields["sensed"].items()) if "sensed" in fields else (),
    )


def _controller(name: str, entry: Entry) -> dict[str, str]:
    required, optional = CONTROLLERS[name]
    return {key: _controller_field(key, value) for key, value in entry.mapping(required, optional).items()}


def _controller_field(key: str, entry: Entry) -> str:
    if key.endswith("topic"):
        return entry.relative_name()
    return entry.text(INTERFACES if key == "interface" else ())


def _camera(entry: Entry) -> Camera:
    fields = entry.mapping(
        required=("name", "topic", "frame", "role", "required"), optional=("info_topic", "compressed")
    )
    return Camera(
        name=fields["name"].text(),
        topic=fields["topic"].relative_name(),
        info_topic=fields["info_topic"].relative_name() if "info_topic" in fields else "",
        frame=fields["frame"].text(),
        role=fields["role"].text(ROLES),
        required=fields["required"].flag(),
        compressed=fields["compressed"].flag() if "compressed" in fields else False,
    )


def _columns(entry: Entry, groups: tuple[Group, ...], *, commanded: bool = False) -> tuple[Column, ...]:
    return _unique(tuple(_column(item, groups, commanded) for item in entry.items()), entry)


def _column(entry: Entry, groups: tuple[Group, ...], commanded: bool) -> Column:
    fields = entry.mapping(required=("name", "unit", "group", "joint"), optional=("kind",))
    name = fields["group"].text(tuple(group.name for group in groups))
    group = next(group for group in groups if group.name == name)
    joint = fields["joint"].text(group.command_joints if commanded else group.command_joints + group.sensed)
    return Column(
        name=fields["name"].text(),
        unit=fields["unit"].text(_units(group, joint)),
        group=name,
        joint=joint,
        kind=fields["kind"].text(KINDS) if "kind" in fields else "absolute",
    )


def _units(group: Group, joint: str) -> tuple[str, ...]:
    if group.gripper is not None and joint == group.gripper.name:
        return ("gripper",)
    if group.pose and joint in POSE_AXES:
        return ("m" if joint in POSE_AXES[:3] else "rad", "none")
    return UNITS


def _commanded(columns: tuple[Column, ...], entry: Entry, groups: tuple[Group, ...]) -> tuple[Column, ...]:
    """The action columns, checked to command every joint of every group once."""
    given = [(column.group, column.joint) for column in columns]
    for group in groups:
        for joint in group.command_joints:
            if (times := given.count((group.name, joint))) != 1:
                raise entry.error(
                    f"commands joint {joint!r} of group {group.name!r} {times} times; "
                    "allowed: exactly one column for each joint and gripper of each group"
                )
    _check_deltas(columns, entry, groups)
    return columns


def _check_deltas(columns: tuple[Column, ...], entry: Entry, groups: tuple[Group, ...]) -> None:
    """A pose is commanded by deltas and joints are not; one robot does not mix the two."""
    posed = {group.name: bool(group.pose) for group in groups}
    if len(set(posed.values())) > 1:
        raise entry.error("mixes groups with joints and groups with a pose; allowed: all groups of the same sort")
    for column in columns:
        if (column.kind == "delta") != (posed[column.group] and column.joint in POSE_AXES):
            raise entry.error(
                f"has column {column.name!r} of kind {column.kind!r}; allowed: 'delta' for the coordinates of a pose, "
                "and only there"
            )


def _check_relative(action: tuple[Column, ...], state: tuple[Column, ...], entry: Entry) -> None:
    measured = {(column.group, column.joint) for column in state}
    for column in action:
        if column.kind == "relative" and (column.group, column.joint) not in measured:
            raise entry.error(f"has the relative column {column.name!r}, so the state must have a column for its joint")


def _limits(entry: Entry) -> LimitRules:
    fields = entry.mapping(optional=tuple(field.name for field in dataclasses.fields(LimitRules)))
    ranges = {"position_margin": (0.0, 1.0), "velocity_scale": (0.01, 1.0)}
    return LimitRules(**{name: value.number(*ranges.get(name, (0.001, 1e6))) for name, value in fields.items()})


def _unique(items: tuple[Named, ...], entry: Entry) -> tuple[Named, ...]:
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            raise entry.error(f"names {name!r} more than once; allowed: each name once")
    return items
