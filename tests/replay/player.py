"""Plays a bag again and again, as its drivers did: stamped now, best effort, each sender a publisher of its own.

`player.py BAG`. Senders of one topic are told apart by the joints they name.
"""

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage, Image, JointState

KINDS = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (JointState, Image, CompressedImage)}
KINDS["geometry_msgs/msg/PoseStamped"] = PoseStamped
_STAMP = slice(4, 12)  # of the header, which comes first in each of these, after four bytes that tell the encoding


def main() -> None:
    """Plays until it is killed."""
    rclpy.init()
    node = rclpy.create_node("player")
    publishers: dict[Any, Publisher] = {}
    for due_s, topic, kind, data in played(Path(sys.argv[1])):
        sender = topic, *(deserialize_message(data, JointState).name if kind is JointState else ())
        if sender not in publishers:
            publishers[sender] = node.create_publisher(kind, topic, qos_profile_sensor_data)
        time.sleep(max(0.0, due_s - time.monotonic()))
        publishers[sender].publish(stamped(data, node.get_clock().now().nanoseconds))


def played(bag: Path) -> Iterator[tuple[float, str, type, bytes]]:
    """When each message is due (time.monotonic()), its topic, type and bytes; for ever."""
    with AnyReader([bag]) as reader:
        messages = [(at_ns, c.topic, KINDS[c.msgtype], bytes(data)) for c, at_ns, data in reader.messages()]
    first_ns, length_s = messages[0][0], (messages[-1][0] - messages[0][0]) / 1e9
    begin = time.monotonic()
    while True:
        for at_ns, topic, kind, data in messages:
            yield begin + (at_ns - first_ns) / 1e9, topic, kind, data
        begin += length_s


def stamped(data: bytes, stamp_ns: int) -> bytes:
    """A serialised message with another stamp."""
    changed = bytearray(data)
    changed[_STAMP] = struct.pack("<iI", *divmod(stamp_ns, 1_000_000_000))
    return bytes(changed)


if __name__ == "__main__":
    main()
