"""What a simulated robot offers, whichever it is: the loop steps it, a node publishes it."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from openpi_sim.controller import Controller

Pose = Float[np.ndarray, "7"]
"""Position in m, then quaternion w x y z, in the world frame."""


@dataclasses.dataclass(frozen=True)
class JointReading:
    """What the driver of one group of joints reports, in its own names and units (rad or m, per second, N m or N).

    Attributes:
        effort: empty where the driver knows none.
        hand: pose of the end effector, where the driver reports it.
    """

    names: tuple[str, ...]
    position: Float[np.ndarray, " joints"]
    velocity: Float[np.ndarray, " joints"]
    effort: Float[np.ndarray, " known"]
    hand: Pose | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """An ideal pinhole camera, square pixels, principal point in the middle."""

    width: int
    height: int
    focal_px: float

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """K: optical coordinates (x right, y down, z forward) to homogeneous pixels, whose centres are integers."""
        centre = (self.width - 1) / 2, (self.height - 1) / 2
        return np.array([[self.focal_px, 0, centre[0]], [0, self.focal_px, centre[1]], [0, 0, 1]])


class Cameras(Protocol):
    """Off-screen pictures of a world. Made, used and closed on one thread."""

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras that can be rendered."""

    def render(self, name: str) -> UInt8[np.ndarray, "height width 3"]:
        """What the camera sees now, RGB."""

    def close(self) -> None:
        """Free the renderer."""


class World(Protocol):
    """A robot among its objects. All methods but `intrinsics` are called on the loop's thread."""

    @property
    def period_ns(self) -> int:
        """Simulated time that one step takes."""

    @property
    def objects(self) -> Mapping[str, Pose]:
        """True pose of each object."""

    @property
    def reward(self) -> float:
        """What the task gives at this moment."""

    @property
    def success(self) -> bool:
        """Whether the task is solved at this moment."""

    def reset(self, seed: int) -> None:
        """Start an episode with the objects where `seed` puts them."""

    def controllers(self) -> dict[str, Controller]:
        """Controllers of an episode that begins, by group; what they want, joined in this order, is a command."""

    def command(self, target: Float[np.ndarray, " dim"]) -> None:
        """Set what the next step is to do."""

    def step(self) -> None:
        """Advance one period."""

    def readings(self) -> Mapping[str, JointReading]:
        """What the drivers read now, by group."""

    def open_cameras(self, names: tuple[str, ...], *, width: int, height: int) -> Cameras:
        """A renderer for these cameras; none needs no rendering library.

        Raises:
            RenderingError: no rendering library works here.
            ValueError: the world has no such camera.
        """

    def intrinsics(self, name: str, width: int, height: int) -> Intrinsics:
        """Pinhole model of a camera whose images have this size in pixels."""
