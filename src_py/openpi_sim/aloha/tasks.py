"""The two ALOHA tasks of gym-aloha: where their objects start and what earns which reward."""

import dataclasses
from collections.abc import Callable, Set

import numpy as np
from gym_aloha.utils import sample_box_pose, sample_insertion_pose
from jaxtyping import Float

MAX_REWARD = 4
"""The reward that means success, in both tasks."""

Contacts = Set[frozenset[str]]
"""Pairs of geom names that touch."""

_LEFT_FINGER = "vx300s_left/10_left_gripper_finger"
_RIGHT_FINGER = "vx300s_right/10_right_gripper_finger"
_SOCKET = ("socket-1", "socket-2", "socket-3", "socket-4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task: its MJCF, its free bodies, and how they are placed and rewarded.

    Attributes:
        name: the name users give.
        xml: file name in gym-aloha's assets.
        objects: names of the free bodies, in the order of their poses.
        sample: seed -> poses [objects, 7] (position in m, quaternion w x y z) in the world frame.
        reward: contacts -> 0 to `MAX_REWARD`.
        instruction: the task in words, as a policy's default prompt.
    """

    name: str
    xml: str
    objects: tuple[str, ...]
    sample: Callable[[int], Float[np.ndarray, "objects 7"]]
    reward: Callable[[Contacts], int]
    instruction: str


def _touch(contacts: Contacts, one: str, other: str) -> bool:
    return frozenset((one, other)) in contacts


def _touch_any(contacts: Contacts, ones: tuple[str, ...], other: str) -> bool:
    return any(_touch(contacts, one, other) for one in ones)


def transfer_cube_reward(contacts: Contacts) -> int:
    """1 right gripper touches the cube, 2 and it is lifted, 3 left gripper touches it, 4 and it is lifted."""
    lifted = not _touch(contacts, "red_box", "table")
    if _touch(contacts, "red_box", _LEFT_FINGER):
        return 4 if lifted else 3
    if _touch(contacts, "red_box", _RIGHT_FINGER):
        return 2 if lifted else 1
    return 0


def insertion_reward(contacts: Contacts) -> int:
    """1 both objects touched, 2 both lifted, 3 peg and socket touch in the air, 4 the peg touches the socket's pin."""
    if _touch(contacts, "red_peg", "pin"):
        return 4
    lifted = not (_touch(contacts, "red_peg", "table") or _touch_any(contacts, _SOCKET, "table"))
    if lifted and _touch_any(contacts, _SOCKET, "red_peg"):
        return 3
    if _touch(contacts, "red_peg", _RIGHT_FINGER) and _touch_any(contacts, _SOCKET, _LEFT_FINGER):
        return 2 if lifted else 1
    return 0


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="transfer_cube",
            xml="bimanual_viperx_transfer_cube.xml",
            objects=("box",),
            sample=lambda seed: sample_box_pose(seed)[None],
            reward=transfer_cube_reward,
            instruction="Transfer cube",
        ),
        Task(
            name="insertion",
            xml="bimanual_viperx_insertion.xml",
            objects=("peg", "socket"),
            sample=lambda seed: np.stack(sample_insertion_pose(seed)),
            reward=insertion_reward,
            instruction="Insert the peg into the socket",
        ),
    )
}


def find_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"There is no ALOHA task '{name}'. Tasks: {', '.join(TASKS)}.")
    return TASKS[name]
