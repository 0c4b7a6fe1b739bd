"""Codecs: what a robot's signals mean to a policy, for training data and for inference alike.

A codec of one's own is a `Codec` of other parts, in a Python file whose name `get` takes as well:

    JOINTS20 = Codec("joints20", state=(JOINTS, GRIP), action=AbsoluteTarget(TARGET_JOINTS), fps=20)
"""

import difflib
import functools
import pathlib

from openpi.codecs.actions import AbsoluteTarget, AbsoluteTrajectory, JointDelta
from openpi.codecs.codec import Codec
from openpi.codecs.signals import (
    EE_POSE,
    EXTERIOR_IMAGE,
    GRIP,
    JOINTS,
    TARGET_JOINTS,
    TARGET_POSE,
    WRIST_IMAGE,
    Signals,
)
from openpi.policies import droid_policy
from openpi.shared import source_files

__all__ = ["AbsoluteTarget", "AbsoluteTrajectory", "Codec", "JointDelta", "Signals", "get", "names", "register"]

_CODECS: dict[str, Codec] = {}


def register(codec: Codec) -> Codec:
    """Make a codec known by its name."""
    if codec.name in _CODECS:
        raise ValueError(f"There is a codec '{codec.name}' already; give yours another name.")
    _CODECS[codec.name] = codec
    return codec


def get(name: str) -> Codec:
    """The codec of this name, or that of a file: `path/to/file.py:name`.

    Of a path as in `@positronic.vendors.openpi.codecs.ee`, the last part counts.

    Raises:
        ValueError: there is none; the message lists those there are.
        FileNotFoundError: there is no such file.
    """
    path, is_file, own = name.partition(".py:")
    if is_file:
        return _of_file(pathlib.Path(f"{path}.py").resolve(), own)
    short = name.rpartition(".")[2]
    if short not in _CODECS:
        near = difflib.get_close_matches(short, _CODECS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"There is no codec '{name}'.{hint} There are {', '.join(_CODECS)}, and FILE.py:NAME.")
    return _CODECS[short]


def _of_file(path: pathlib.Path, name: str) -> Codec:
    codecs = _load(path)
    if name not in codecs:
        raise ValueError(f"{path} has no codec '{name}'; it has {', '.join(codecs) or 'none'}.")
    return codecs[name]


@functools.cache
def _load(path: pathlib.Path) -> dict[str, Codec]:
    module = source_files.run(path, "codec")
    return {value.name: value for value in vars(module).values() if isinstance(value, Codec)}


def names() -> list[str]:
    """All codecs by name."""
    return list(_CODECS)


register(Codec("ee", state=(EE_POSE, GRIP), action=AbsoluteTarget(TARGET_POSE)))
register(Codec("ee_joints", state=(EE_POSE, GRIP, JOINTS), action=AbsoluteTarget(TARGET_POSE)))
register(Codec("ee_traj", state=(EE_POSE, GRIP), action=AbsoluteTrajectory(EE_POSE, TARGET_POSE)))
register(Codec("ee_joints_traj", state=(EE_POSE, GRIP, JOINTS), action=AbsoluteTrajectory(EE_POSE, TARGET_POSE)))
register(Codec("joints_traj", state=(JOINTS, GRIP), action=AbsoluteTrajectory(JOINTS, TARGET_JOINTS)))
register(
    Codec(
        "droid",
        state=(JOINTS, GRIP),
        action=JointDelta(),
        image_keys={WRIST_IMAGE: droid_policy.WRIST_CAMERA, EXTERIOR_IMAGE: droid_policy.EXTERIOR_CAMERA},
        state_keys={"observation/joint_position": (JOINTS,), "observation/gripper_position": (GRIP,)},
    )
)
