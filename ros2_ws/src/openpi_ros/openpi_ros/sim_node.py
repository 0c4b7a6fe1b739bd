"""The base of all simulators' nodes: a world behind the topics of the real robot, and the clock everything runs on."""

from collections.abc import Callable
from typing import Any, ClassVar

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray, PoseStamped
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, UInt32
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from openpi_ros import lifecycle, qos, sim_messages
from openpi_ros.conversions import image_message, time_ns, to_time
from openpi_runtime.robots import Camera, Group, RobotSpec, load_robot
from openpi_sim.controller import Controller
from openpi_sim.loop import LoopSettings, SimulationLoop, follow
from openpi_sim.world import Intrinsics, World

_FACTOR_PERIOD_NS = 500_000_000
_LOG_PERIOD_S = 1.0

Calibration = tuple[Publisher, Intrinsics]
Command = Callable[[Controller, int], None]


class SimulationNode(lifecycle.ManagedNode):
    """Publishes /clock, joint states, cameras and what only a simulator knows; obeys commands.

    Every message carries simulated time. The simulation runs in a thread of its own, which also publishes.

    Attributes:
        reset_timeout_s: wall time that a reset may take.
        world_frame: what the simulator's own coordinates are in; `world` is the root of a robot's URDF.
    """

    reset_timeout_s: ClassVar[float] = 10.0
    world_frame: ClassVar[str] = "world"

    def make_world(self, robot: RobotSpec) -> World:
        """What is simulated, from `self.params`. A subclass writes this."""
        raise TypeError(f"{type(self).__name__} must define make_world.")

    def begin_episode(self) -> int:
        """Starts an episode from `self.params` and returns its number. A subclass may add to it.

        Raises:
            ValueError: there is no such episode.
            TimeoutError: the simulation did not answer.
        """
        return self._loop.reset(self.params["seed"])

    def set_up(self) -> None:
        robot = load_robot(self.params["robot"])
        world = self.make_world(robot)
        _check_groups(robot, world)
        self._report = _Reporter(self, robot, world)
        self._loop = SimulationLoop(world, self._settings(world.period_ns), self._report)
        self._loop.start()
        self.resources.callback(self._loop.close)
        self.begin_episode()
        for group in robot.groups:
            self._obey(group)
        self.create_service(Trigger, "~/reset", self._on_reset)

    def set_active(self, active: bool) -> None:
        self._loop.set_running(active)

    def real_time_factor(self) -> float:
        """Simulated per wall seconds over about the last second."""
        return self._loop.real_time_factor

    def _settings(self, period_ns: int) -> LoopSettings:
        return LoopSettings(
            cameras=tuple(self.params["cameras"]),
            width=self.params["width"],
            height=self.params["height"],
            steps_per_image=max(1, round(1e9 / period_ns / self.params["camera_hz"])),
            max_real_time_factor=self.params["max_real_time_factor"],
            command_wait=self.params["command_wait"],
            reset_timeout=self.reset_timeout_s,
        )

    def _obey(self, group: Group) -> None:
        for name, controller in group.controllers.items():
            if name in _COMMANDS and controller.get("interface", "position") == "position":
                self._listen(group, controller["topic"], *_COMMANDS[name])

    def _listen(self, group: Group, topic: str, kind: type, read: Callable[[Any], Command]) -> None:
        self.create_subscription(kind, topic, lambda message: self._command(group, read(message)), qos.COMMAND)

    def _command(self, group: Group, apply: Command) -> None:
        try:
            self._loop.command(group.name, apply)
        except ValueError as error:
            reason = f"The group '{group.name}' refused a command: {error}"
            self.get_logger().warning(reason, throttle_duration_sec=_LOG_PERIOD_S)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            episode = self.begin_episode()
        except (ValueError, TimeoutError) as error:
            response.message = str(error)
            return response
        response.success = True
        response.message = f"episode {episode}, seed {self.params['seed']}"
        return response


class _Reporter:
    """Publishes what the simulation does; called on its thread."""

    def __init__(self, node: SimulationNode, robot: RobotSpec, world: World) -> None:
        self._node = node
        self._joints = {g.name: node.create_publisher(JointState, g.joint_states, qos.SENSOR) for g in robot.groups}
        self._hands = {g.name: node.create_publisher(PoseStamped, g.pose, qos.SENSOR) for g in robot.groups if g.pose}
        self._clock = node.create_publisher(Clock, "/clock", qos.STATE)
        self._reward = node.create_publisher(Float32, "sim/reward", qos.STATE)
        self._success = node.create_publisher(Bool, "sim/success", qos.STATE)
        self._objects = node.create_publisher(PoseArray, "sim/objects", qos.STATE)
        self._factor = node.create_publisher(Float32, "sim/real_time_factor", qos.STATE)
        self._episode = node.create_publisher(UInt32, "sim/episode", qos.LATCHED)
        self._start = node.create_publisher(Time, "sim/episode_start", qos.LATCHED)
        self._now_ns = 0
        self._next_factor_ns = 0
        self._solved = False
        wanted = [camera for camera in robot.cameras if camera.name in node.params["cameras"]]
        self._cameras = {camera.name: self._camera(camera, world) for camera in wanted}

    def _camera(self, camera: Camera, world: World) -> tuple[Camera, Publisher, Calibration | None]:
        pictures = self._node.create_publisher(Image, camera.topic, qos.SENSOR)
        if not camera.info_topic:
            return camera, pictures, None
        pinhole = world.intrinsics(camera.name, self._node.params["width"], self._node.params["height"])
        return camera, pictures, (self._node.create_publisher(CameraInfo, camera.info_topic, qos.SENSOR), pinhole)

    def on_episode(self, episode: int) -> None:
        self._episode.publish(UInt32(data=episode))
        self._start.publish(to_time(self._now_ns))
        self._node.get_logger().info(f"Episode {episode} with seed {self._node.params['seed']}.")

    def on_step(self, time_ns: int, world: World) -> None:
        self._now_ns = time_ns
        for group, reading in world.readings().items():
            self._joints[group].publish(sim_messages.joint_state(reading, time_ns))
            if reading.hand is not None:
                self._hands[group].publish(sim_messages.pose_stamped(reading.hand, time_ns, self._node.world_frame))
        # After the joint states and before the cameras: whoever acts at this time has the state of this time, and
        # has the time it takes to render to act.
        self._clock.publish(Clock(clock=to_time(time_ns)))
        self._objects.publish(sim_messages.poses(world.objects.values(), time_ns, self._node.world_frame))
        self._reward.publish(Float32(data=float(world.reward)))
        self._success.publish(Bool(data=world.success))
        self._say_solved(world.success)
        if time_ns >= self._next_factor_ns:
            self._factor.publish(Float32(data=self._node.real_time_factor()))
            self._next_factor_ns = time_ns + _FACTOR_PERIOD_NS

    def _say_solved(self, solved: bool) -> None:
        if solved and not self._solved:
            self._node.get_logger().info("The task is solved.")
        self._solved = solved

    def on_image(self, time_ns: int, camera: str, image: Any) -> None:
        spec, pictures, calibration = self._cameras[camera]
        pictures.publish(image_message(image, time_ns, spec.frame))
        if calibration is not None:
            infos, pinhole = calibration
            infos.publish(sim_messages.camera_info(pinhole, time_ns, spec.frame))

    def on_failure(self, error: Exception) -> None:
        self._node.give_up(f"The simulation failed: {error}")


def _trajectory(message: JointTrajectory) -> Command:
    after = [time_ns(point.time_from_start) for point in message.points]
    positions = [point.positions for point in message.points]
    return follow(message.joint_names, time_ns(message.header.stamp), after, positions)


def _forward(message: Float64MultiArray) -> Command:
    return lambda controller, _: controller.forward(message.data)


def _equilibrium(message: JointState) -> Command:
    """Of an impedance controller: at once, as far as its springs pull."""
    return follow(message.name, 0, [1], [message.position])


# Kind of controller, as robot descriptions name it -> the messages it takes, and what they command.
_COMMANDS: dict[str, tuple[type, Callable[[Any], Command]]] = {
    "joint_trajectory": (JointTrajectory, _trajectory),
    "forward": (Float64MultiArray, _forward),
    "franka": (JointState, _equilibrium),
}


def _check_groups(robot: RobotSpec, world: World) -> None:
    ours, theirs = {group.name for group in robot.groups}, set(world.controllers())
    if ours != theirs:
        raise ValueError(
            f"Robot {robot.name} has the groups {', '.join(sorted(ours))}, but this simulator moves "
            f"{', '.join(sorted(theirs))}; choose the robot it is for, or give its groups these names."
        )
