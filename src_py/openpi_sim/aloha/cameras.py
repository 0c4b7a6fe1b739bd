"""The cameras of the simulated ALOHA: pictures, intrinsics and poses."""

import dataclasses
import math
import os
from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8

from openpi_sim.aloha.world import AlohaWorld
from openpi_sim.gl import RenderingError, mujoco, require_rendering

MUJOCO_CAMERAS = {
    "cam_high": "top",
    "cam_low": "angle",
    "cam_left_wrist": "left_wrist",
    "cam_right_wrist": "right_wrist",
}
"""ALOHA's camera names to the MJCF's."""


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


class AlohaCameras:
    """Off-screen renderer of one world's cameras. Use it from the thread that made it, and close it.

    Without names it renders nothing, and needs no rendering library.

    Raises:
        RenderingError: no rendering library works here; the message says what to install.
        ValueError: a name is not in `MUJOCO_CAMERAS`.
    """

    def __init__(self, world: AlohaWorld, names: tuple[str, ...], *, width: int = 640, height: int = 480) -> None:
        for name in names:
            if name not in MUJOCO_CAMERAS:
                raise ValueError(f"ALOHA has no camera '{name}'. Cameras: {', '.join(MUJOCO_CAMERAS)}.")
        self.names = names
        self._world = world
        self._renderer = _make_renderer(world.model, width, height) if names else None

    def __enter__(self) -> "AlohaCameras":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def render(self, name: str) -> UInt8[np.ndarray, "height width 3"]:
        """What the camera sees now, RGB."""
        if self._renderer is None:
            raise RuntimeError(f"Camera '{name}' cannot be rendered: it was not asked for, or the renderer is closed.")
        self._renderer.update_scene(self._world.data, camera=MUJOCO_CAMERAS[name])
        return self._renderer.render()


def intrinsics(world: AlohaWorld, name: str, width: int, height: int) -> Intrinsics:
    """Pinhole model of a camera whose images have this size in pixels."""
    fov_y = math.radians(world.model.camera(MUJOCO_CAMERAS[name]).fovy[0])
    return Intrinsics(width=width, height=height, focal_px=height / 2 / math.tan(fov_y / 2))


def optical_pose(world: AlohaWorld, name: str) -> Float[np.ndarray, "4 4"]:
    """Pose in the world frame of a camera's optical frame (REP-103: x right, y down, z forward)."""
    camera = world.data.camera(MUJOCO_CAMERAS[name])
    pose = np.eye(4)
    pose[:3, :3] = camera.xmat.reshape(3, 3) * (1, -1, -1)  # MuJoCo's cameras look along -z with y up
    pose[:3, 3] = camera.xpos
    return pose


def _make_renderer(model: "mujoco.MjModel", width: int, height: int) -> "mujoco.Renderer":
    require_rendering()
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    try:
        return mujoco.Renderer(model, height, width)
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        raise RenderingError(os.environ["MUJOCO_GL"], str(error)) from error
