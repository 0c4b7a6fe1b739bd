"""`bag_recorder_node`: everything a policy sees and a robot does, as a bag that `ros2 bag` and rosbags read."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from openpi_msgs.msg import ActionChunk, ExecutorState
from rclpy.qos import QoSProfile
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Bool, Float32

from openpi_ros import lifecycle, qos
from openpi_ros.outputs import command_topics
from openpi_ros.robot_state import state_topics
from openpi_runtime.robots import RobotSpec, load_robot

_VERSION: Final = 9  # of the bag format; Jazzy's
# Packages whose messages rosbags does not know, where they are installed.
_PACKAGES: Final = ("openpi_msgs", "interbotix_xs_msgs")


class BagRecorderNode(lifecycle.ManagedNode):
    """Writes messages as they come, undecoded, stamped with the node's clock at their arrival."""

    name = "bag_recorder_node"

    def set_up(self) -> None:
        folder = Path(self.params["folder"])
        if not self.params["folder"] or folder.exists():
            raise ValueError(f"Parameter 'folder' is {str(folder)!r}; name a folder that does not exist yet.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._active = False
        self._types = _typestore()
        self._writer = self.resources.enter_context(Writer(folder, version=_VERSION, storage_plugin=StoragePlugin.MCAP))
        for kind, topic, profile in topics(load_robot(self.params["robot"])):
            self._record(kind, topic, profile)

    def set_active(self, active: bool) -> None:
        self._active = active

    def _record(self, kind: type, topic: str, profile: QoSProfile) -> None:
        def write(data: bytes) -> None:
            if self._active:
                self._writer.write(connection, self.get_clock().now().nanoseconds, data)

        subscription = self.create_subscription(kind, topic, write, profile, raw=True)
        connection = self._writer.add_connection(subscription.topic_name, _type_name(kind), typestore=self._types)


def topics(robot: RobotSpec) -> Iterator[tuple[type, str, QoSProfile]]:
    """Type, relative name and quality of service of every topic worth keeping."""
    for camera in robot.cameras:
        yield (CompressedImage if camera.compressed else Image), camera.topic, qos.SENSOR
        if camera.info_topic:
            yield CameraInfo, camera.info_topic, qos.SENSOR
    for topic, kind in state_topics(robot).items():
        yield kind, topic, qos.SENSOR
    for group in robot.groups:
        for kind, topic in command_topics(group):
            yield kind, topic, qos.COMMAND
    yield ActionChunk, "openpi_policy_node/action_chunk", qos.CHUNK
    yield ExecutorState, "chunk_executor_node/state", qos.STATE
    yield Bool, "sim/success", qos.STATE
    yield Float32, "sim/reward", qos.STATE


def _type_name(kind: Any) -> str:
    package, folder, _ = kind.__module__.split(".", 2)
    return f"{package}/{folder}/{kind.__name__}"


def _typestore() -> Any:
    """Jazzy's types and those of `_PACKAGES`, read from the definitions that are installed."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            for path in sorted((Path(get_package_share_directory(package)) / "msg").glob("*.msg")):
                store.register(get_types_from_msg(path.read_text(), f"{package}/msg/{path.stem}"))
    return store


def main(args: Sequence[str] | None = None) -> int:
    """The process `bag_recorder_node`."""
    return lifecycle.run(BagRecorderNode, args)


if __name__ == "__main__":
    sys.exit(main())
