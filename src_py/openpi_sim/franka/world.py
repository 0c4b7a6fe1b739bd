"""A Panda on a table in MuJoCo, built from the URDF that ROS uses: joint servos at 15 Hz, three cubes to lift."""

import dataclasses
from pathlib import Path

import numpy as np
import xacro
from jaxtyping import Float

from openpi_sim import cameras
from openpi_sim.controller import Controller, JointController
from openpi_sim.franka import panda
from openpi_sim.gl import mujoco
from openpi_sim.world import Intrinsics, JointReading, Pose

CONTROL_HZ = 15
_SUBSTEPS = 32
CUBES = {"red": (0.85, 0.1, 0.1), "green": (0.1, 0.6, 0.15), "blue": (0.1, 0.2, 0.85)}
"""Colour -> RGB; the cubes' names are the colours."""

CUBE_SIZE_M = 0.04
LIFTED_M = 0.12
"""Height of a cube's centre above the table at which it counts as lifted."""

_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)  # N m/rad, a stiff joint impedance
_DAMPING = (130.0, 130.0, 100.0, 100.0, 40.0, 40.0, 40.0)
_FINGER_STIFFNESS = 800.0
_FINGER_FORCE_N = 40.0

# Bit masks of contacts: the robot touches things but not itself, things touch everything.
_ROBOT, _THING = 1, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera of the scene: the URDF frame it looks from and its vertical field of view in degrees."""

    frame: str
    fov_y: float


CAMERAS = {
    "exterior": Camera(frame="exterior_optical_frame", fov_y=55.0),
    "wrist": Camera(frame="wrist_optical_frame", fov_y=70.0),
}


def load_model(urdf: Path) -> "mujoco.MjModel":
    """The robot of a xacro file with servos and cameras, and the cubes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another robot.
    """
    if not urdf.is_file():
        raise FileNotFoundError(f"The Franka simulation reads the robot from {urdf}, which is not there.")
    spec = mujoco.MjSpec.from_string(xacro.process_file(str(urdf)).toxml())
    _check_names(spec, urdf)
    spec.compiler.fusestatic = False  # frames without geometry carry cameras
    spec.compiler.discardvisual = False
    spec.option.timestep = 1.0 / CONTROL_HZ / _SUBSTEPS
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0  # keeps what the fingers hold from creeping out
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = (0.45, 0.45, 0.45)
    spec.worldbody.add_light(pos=(0.5, 0.0, 2.0), dir=(0.0, 0.0, -1.0))
    _prepare_robot(spec)
    _add_servos(spec)
    _add_cameras(spec)
    for name, rgb in CUBES.items():
        _add_cube(spec, name, rgb)
    return spec.compile()


def _check_names(spec: "mujoco.MjSpec", urdf: Path) -> None:
    needed = {*panda.ARM_JOINTS, *panda.FINGER_JOINTS, *(camera.frame for camera in CAMERAS.values())}
    missing = needed - {joint.name for joint in spec.joints} - {body.name for body in spec.bodies}
    if missing:
        raise ValueError(f"The Franka simulation needs joints and camera frames that {urdf} lacks: {sorted(missing)}.")


def _prepare_robot(spec: "mujoco.MjSpec") -> None:
    for body in spec.bodies:
        is_robot = body.name.startswith("panda_")
        body.gravcomp = 1.0 if is_robot else 0.0  # the robot's own controller carries its weight
        for geom in body.geoms:
            geom.contype, geom.conaffinity = (_ROBOT, _THING) if is_robot else (_THING, _ROBOT | _THING)
            if body.name.startswith("panda_finger"):
                geom.friction = (1.5, 0.05, 0.001)
                geom.condim = 4
    for joint in spec.joints:
        joint.armature = 0.1 if joint.name in panda.ARM_JOINTS else 0.01
        joint.damping = (1.0, 0.0, 0.0)


def _add_servos(spec: "mujoco.MjSpec") -> None:
    for joint, stiffness, damping in zip(panda.ARM_JOINTS, _STIFFNESS, _DAMPING, strict=True):
        effort = 87.0 if joint in panda.ARM_JOINTS[:4] else 12.0
        _add_servo(spec, joint, stiffness, damping, effort * 4)  # links are lighter in life than their primitives
    for joint in panda.FINGER_JOINTS:
        _add_servo(spec, joint, _FINGER_STIFFNESS, 40.0, _FINGER_FORCE_N)


def _add_servo(spec: "mujoco.MjSpec", joint: str, stiffness: float, damping: float, limit: float) -> None:
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=stiffness, kv=damping)
    servo.forcelimited = True
    servo.forcerange = (-limit, limit)


def _add_cameras(spec: "mujoco.MjSpec") -> None:
    for name, camera in CAMERAS.items():
        # MuJoCo's cameras look along -z with y up, optical frames along z with y down: half a turn about x.
        spec.body(camera.frame).add_camera(name=name, quat=(0.0, 1.0, 0.0, 0.0), fovy=camera.fov_y)


def _add_cube(spec: "mujoco.MjSpec", name: str, rgb: tuple[float, float, float]) -> None:
    cube = spec.worldbody.add_body(name=name)
    cube.add_freejoint(name=name)
    cube.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(CUBE_SIZE_M / 2,) * 3,
        rgba=(*rgb, 1.0),
        mass=0.05,
        condim=4,
        friction=(1.0, 0.02, 0.001),
        contype=_THING,
        conaffinity=_ROBOT | _THING,
    )


class FrankaWorld:
    """A Panda, a table and three cubes.

    States and commands are [8]: seven joint angles in rad and the gripper (0 open, 1 closed). A command is the joints'
    target until the next one. The task is solved while the cube is in the air.
    """

    period_ns = round(1e9 / CONTROL_HZ)

    def __init__(self, urdf: Path, cube: str = "red") -> None:
        """urdf: the robot and its cameras. cube: the one to lift, a key of `CUBES`.

        Raises:
            FileNotFoundError: there is no such robot.
            ValueError: there is no such cube.
        """
        if cube not in CUBES:
            raise ValueError(f"There is no {cube!r} cube. Cubes: {', '.join(CUBES)}.")
        self._cube = cube
        self.model = load_model(urdf)
        self.data = mujoco.MjData(self.model)
        self._arm = [int(self.model.joint(name).qposadr[0]) for name in panda.ARM_JOINTS]
        self._fingers = [int(self.model.joint(name).qposadr[0]) for name in panda.FINGER_JOINTS]
        self._dofs = [int(self.model.joint(name).dofadr[0]) for name in (*panda.ARM_JOINTS, *panda.FINGER_JOINTS)]
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode: the arm at its start pose, the cubes apart from each other where `seed` puts them."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._arm] = panda.START_ARM
        self.data.qpos[self._fingers] = panda.FINGER_OPEN_M
        self.command(np.append(panda.START_ARM, 0.0))
        for name, (x, y) in zip(CUBES, _scatter(np.random.default_rng(seed)), strict=True):
            address = self.model.joint(name).qposadr[0]
            self.data.qpos[address : address + 7] = (x, y, CUBE_SIZE_M / 2, 1.0, 0.0, 0.0, 0.0)
        mujoco.mj_forward(self.model, self.data)

    def command(self, target: Float[np.ndarray, "8"]) -> None:
        """Set the joints' and the gripper's target.

        Raises:
            ValueError: `target` has another size or holds a NaN or an infinity.
        """
        target = np.asarray(target, np.float64)
        if target.shape != (panda.STATE_DIM,) or not np.isfinite(target).all():
            raise ValueError(f"A command is {panda.STATE_DIM} finite numbers, not {target.tolist()}.")
        finger = panda.gripper_to_finger(np.clip(target[7], 0.0, 1.0))
        self.data.ctrl[:] = np.append(target[:7], [finger, finger])

    def step(self) -> None:
        """Advance one control period (1/15 s)."""
        mujoco.mj_step(self.model, self.data, _SUBSTEPS)

    @property
    def state(self) -> Float[np.ndarray, "8"]:
        """Measured joint angles and gripper."""
        gripper = panda.finger_to_gripper(self.data.qpos[self._fingers].mean())
        return np.append(self.data.qpos[self._arm], gripper)

    def controllers(self) -> dict[str, Controller]:
        """One, which holds the start pose: seven joints in rad, then the gripper (0 open, 1 closed)."""
        return {"arm": JointController((*panda.ARM_JOINTS, "gripper"), np.append(panda.START_ARM, 0.0))}

    def readings(self) -> dict[str, JointReading]:
        """As franka_ros2 publishes them: seven joints in rad, both fingers in m, with their efforts."""
        return {
            "arm": JointReading(
                names=(*panda.ARM_JOINTS, *panda.FINGER_JOINTS),
                position=self.data.qpos[self._arm + self._fingers],
                velocity=self.data.qvel[self._dofs],
                effort=self.data.qfrc_actuator[self._dofs],
            )
        }

    @property
    def objects(self) -> dict[str, Pose]:
        """True pose of each cube in the world frame: position in m, quaternion w x y z."""
        starts = {name: self.model.joint(name).qposadr[0] for name in CUBES}
        return {name: self.data.qpos[start : start + 7].copy() for name, start in starts.items()}

    def lifted(self, name: str) -> bool:
        """Whether the cube of this colour is in the air."""
        return bool(self.objects[name][2] > LIFTED_M)

    @property
    def success(self) -> bool:
        """Whether the cube to lift is in the air."""
        return self.lifted(self._cube)

    @property
    def reward(self) -> float:
        """1 while the cube to lift is in the air, else 0."""
        return float(self.success)

    def open_cameras(self, names: tuple[str, ...], *, width: int = 640, height: int = 480) -> cameras.MujocoCameras:
        """A renderer of these of `CAMERAS`.

        Raises:
            RenderingError: no rendering library works here.
            ValueError: there is no such camera.
        """
        known = {name: name for name in CAMERAS}
        return cameras.MujocoCameras(self.model, self.data, known, names, width=width, height=height)

    def intrinsics(self, name: str, width: int, height: int) -> Intrinsics:
        """Pinhole model of a camera whose images have this size in pixels."""
        return cameras.intrinsics(self.model, name, width, height)


def _scatter(random: np.random.Generator) -> Float[np.ndarray, "cubes 2"]:
    """Places on the table, at least 12 cm apart, so that the hand fits between the cubes."""
    while True:
        places = random.uniform((0.4, -0.22), (0.6, 0.22), size=(len(CUBES), 2))
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
        if gaps[~np.eye(len(CUBES), dtype=bool)].min() > 0.12:
            return places
