"""The cameras of a MuJoCo scene: pictures, intrinsics and poses."""

import math
import os
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from openpi_sim.gl import RenderingError, mujoco, require_rendering
from openpi_sim.world import Intrinsics


class MujocoCameras:
    """Off-screen renderer of one scene. Use it from the thread that made it, and close it.

    Without names it renders nothing, and needs no rendering library.

    Raises:
        RenderingError: no rendering library works here; the message says what to install.
        ValueError: a name is not among the known ones.
    """

    def __init__(
        self,
        model: "mujoco.MjModel",
        data: "mujoco.MjData",
        known: Mapping[str, str],
        names: tuple[str, ...],
        *,
        width: int,
        height: int,
    ) -> None:
        """known: the robot's camera names to the scene's. names: those to render, at width x height pixels."""
        for name in names:
            if name not in known:
                raise ValueError(f"There is no camera '{name}'. Cameras: {', '.join(known)}.")
        self.names = names
        self._known = known
        self._data = data
        self._renderer = _make_renderer(model, width, height) if names else None

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def render(self, name: str) -> UInt8[np.ndarray, "height width 3"]:
        """What the camera sees now, RGB."""
        if self._renderer is None:
            raise RuntimeError(f"Camera '{name}' cannot be rendered: it was not asked for, or the renderer is closed.")
        self._renderer.update_scene(self._data, camera=self._known[name])
        return self._renderer.render()


def intrinsics(model: "mujoco.MjModel", camera: str, width: int, height: int) -> Intrinsics:
    """Pinhole model of a scene's camera whose images have this size in pixels."""
    fov_y = math.radians(model.camera(camera).fovy[0])
    return Intrinsics(width=width, height=height, focal_px=height / 2 / math.tan(fov_y / 2))


def optical_pose(data: "mujoco.MjData", camera: str) -> Float[np.ndarray, "4 4"]:
    """Pose in the world frame of a camera's optical frame (REP-103: x right, y down, z forward)."""
    view = data.camera(camera)
    pose = np.eye(4)
    pose[:3, :3] = view.xmat.reshape(3, 3) * (1, -1, -1)  # MuJoCo's cameras look along -z with y up
    pose[:3, 3] = view.xpos
    return pose


def _make_renderer(model: "mujoco.MjModel", width: int, height: int) -> "mujoco.Renderer":
    require_rendering()
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    try:
        return mujoco.Renderer(model, height, width)
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        raise RenderingError(os.environ["MUJOCO_GL"], str(error)) from error
