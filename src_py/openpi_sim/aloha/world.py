"""ALOHA in MuJoCo: gym-aloha's scene and tasks, stepped at 50 Hz, without its rendering."""

import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Float

from openpi_sim import cameras
from openpi_sim.aloha import arms, tasks
from openpi_sim.controller import Controller, JointController
from openpi_sim.gl import mujoco
from openpi_sim.world import Intrinsics, JointReading, Pose

CONTROL_PERIOD_NS = 20_000_000
CAMERAS = {
    "cam_high": "top",
    "cam_low": "angle",
    "cam_left_wrist": "left_wrist",
    "cam_right_wrist": "right_wrist",
}
"""ALOHA's camera names to the MJCF's."""

_WRIST_CAMERAS = ("left_wrist", "right_wrist")


def _assets() -> Path:
    package = importlib.util.find_spec("gym_aloha")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The ALOHA simulation needs the package gym-aloha: install it, or run `make setup`.")
    return Path(package.origin).parent / "assets"


def load_model(task: tasks.Task) -> "mujoco.MjModel":
    """The task's MJCF with rendering made cheap and the wrist cameras bolted on.

    Shadows, multisampling and reflections cost most of a frame and show nothing that a policy needs. The MJCF
    keeps the wrist cameras level while the wrist rolls; real ones are screwed to the gripper, so they are here.
    """
    spec = mujoco.MjSpec.from_file(str(_assets() / task.xml))
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    for material in spec.materials:
        material.reflectance = 0.0
    for name in _WRIST_CAMERAS:
        _bolt_on(spec.camera(name))
    return spec.compile()


def _bolt_on(camera: "mujoco.MjsCamera") -> None:
    """Turn a camera that tracks a body of its own parent into a fixed one that looks the same way."""
    focus = next(body for body in camera.parent.bodies if body.name == camera.targetbody)
    backward = camera.pos - focus.pos
    backward /= np.linalg.norm(backward)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(backward, right), backward], axis=1)
    mujoco.mju_mat2Quat(camera.quat, axes.ravel())
    camera.mode = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
    camera.targetbody = ""


class AlohaWorld:
    """Two arms, a table and the objects of one task.

    States and commands are [14]: six joint angles in rad and the gripper (0 closed, 1 open) of the left arm, then
    of the right one. A command is the joints' target until the next one.

    Raises:
        ValueError: `task` names no task.
    """

    period_ns = CONTROL_PERIOD_NS

    def __init__(self, task: str = "transfer_cube") -> None:
        self.task = tasks.find_task(task)
        self.model = load_model(self.task)
        self.data = mujoco.MjData(self.model)
        self._substeps = round(CONTROL_PERIOD_NS * 1e-9 / self.model.opt.timestep)
        self._joints = np.array([self._arm_addresses(side) for side in arms.SIDES])
        self._objects = [self.model.body(name).jntadr[0] for name in self.task.objects]
        self._geoms = [self.model.geom(i).name for i in range(self.model.ngeom)]
        self.reset(0)

    def _arm_addresses(self, side: str) -> list[int]:
        names = [f"vx300s_{side}/{joint}" for joint in (*arms.ARM_JOINTS, "left_finger")]
        return [int(self.model.joint(name).qposadr[0]) for name in names]

    def reset(self, seed: int) -> None:
        """Start an episode: arms at their start pose, objects where `seed` puts them, the clock at zero."""
        mujoco.mj_resetData(self.model, self.data)
        self.place_arms(arms.start_state())
        self.command(arms.start_state())
        for joint, pose in zip(self._objects, self.task.sample(seed), strict=True):
            address = self.model.jnt_qposadr[joint]
            self.data.qpos[address : address + 7] = pose
        mujoco.mj_forward(self.model, self.data)

    def place_arms(self, state: Float[np.ndarray, "14"]) -> None:
        """Put the arms into `state` at once, without motion; call `mj_forward` for what follows from it."""
        for addresses, arm in zip(self._joints, np.reshape(state, (2, arms.ARM_DIM)), strict=True):
            finger = arms.gripper_to_finger(arm[-1])
            self.data.qpos[addresses] = [*arm[:-1], finger]
            self.data.qpos[addresses[-1] + 1] = -finger

    def command(self, target: Float[np.ndarray, "14"]) -> None:
        """Set the target of the next steps.

        Raises:
            ValueError: `target` has another size or holds a NaN or an infinity.
        """
        target = np.asarray(target, np.float64)
        if target.shape != (arms.STATE_DIM,):
            raise ValueError(f"A command has {arms.STATE_DIM} values, this one has the shape {target.shape}.")
        if not np.isfinite(target).all():
            raise ValueError(f"A command must be finite, this one is {target.tolist()}.")
        both = target.reshape(2, arms.ARM_DIM)
        finger = arms.gripper_to_finger(both[:, -1:])
        self.data.ctrl[:] = np.concatenate([both[:, :-1], finger, -finger], axis=1).ravel()

    def step(self) -> None:
        """Advance one control period (20 ms)."""
        mujoco.mj_step(self.model, self.data, self._substeps)

    @property
    def state(self) -> Float[np.ndarray, "14"]:
        """Measured joint angles and grippers."""
        position = self.data.qpos[self._joints]
        position[:, -1] = arms.finger_to_gripper(position[:, -1])
        return position.ravel()

    def controllers(self) -> dict[str, Controller]:
        """One for each arm, which holds its start pose: six joints in rad, then the gripper (0 closed, 1 open)."""
        starts = arms.start_state().reshape(2, arms.ARM_DIM)
        names = (*arms.ARM_JOINTS, "gripper")
        return {side: JointController(names, start) for side, start in zip(arms.SIDES, starts, strict=True)}

    def readings(self) -> dict[str, JointReading]:
        """What each arm's driver reads: six joints and the gripper's motor in rad, both fingers in m."""
        return {side: self._reading(addresses) for side, addresses in zip(arms.SIDES, self._joints, strict=True)}

    def _reading(self, addresses: Float[np.ndarray, "7"]) -> JointReading:
        *q, finger = self.data.qpos[addresses]
        *velocity, slide = self.data.qvel[addresses]
        *effort, force = self.data.qfrc_actuator[addresses]
        motor = arms.gripper_to_motor(arms.finger_to_gripper(finger))
        return JointReading(
            names=(*arms.ARM_JOINTS, "gripper", "left_finger", "right_finger"),
            position=np.array([*q, motor, finger, -finger]),
            velocity=np.array([*velocity, slide * arms.MOTOR_RAD_PER_M, slide, -slide]),
            effort=np.array([*effort, 0.0, force, -force]),
        )

    @property
    def objects(self) -> dict[str, Pose]:
        """True pose of each object in the world frame: position in m, quaternion w x y z."""
        starts = {name: self.model.jnt_qposadr[j] for name, j in zip(self.task.objects, self._objects, strict=True)}
        return {name: self.data.qpos[start : start + 7].copy() for name, start in starts.items()}

    @property
    def reward(self) -> int:
        """0 to 4, as the task counts it, from the contacts of the last step."""
        contacts = {frozenset((self._geoms[a], self._geoms[b])) for a, b in self.data.contact.geom}
        return self.task.reward(contacts)

    @property
    def success(self) -> bool:
        """Whether the task is solved at this moment."""
        return self.reward == tasks.MAX_REWARD

    def open_cameras(self, names: tuple[str, ...], *, width: int = 640, height: int = 480) -> cameras.MujocoCameras:
        """A renderer of these of `CAMERAS`.

        Raises:
            RenderingError: no rendering library works here.
            ValueError: there is no such camera.
        """
        return cameras.MujocoCameras(self.model, self.data, CAMERAS, names, width=width, height=height)

    def intrinsics(self, name: str, width: int, height: int) -> Intrinsics:
        """Pinhole model of a camera whose images have this size in pixels."""
        return cameras.intrinsics(self.model, CAMERAS[name], width, height)
