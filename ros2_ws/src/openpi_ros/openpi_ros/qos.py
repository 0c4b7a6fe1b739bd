"""The quality-of-service profiles of every topic, in one place.

Sensors are best effort: a late image is worth less than the next one. Commands, chunks and states are reliable.
Latched topics (descriptions, metadata) are transient local, so that a late subscriber sees them.
"""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


SENSOR = _profile(5, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
COMMAND = _profile(5, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
CHUNK = _profile(5, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
STATE = _profile(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
LATCHED = _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
