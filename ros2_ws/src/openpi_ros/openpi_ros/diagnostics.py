"""Diagnostics by REP-107, without the diagnostic_updater package: values by name, a level and a sentence."""

from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
STEADY = Clock(clock_type=ClockType.STEADY_TIME)
# How often the status is looked at: a change is published at once, the same status once a second.
_CHECK_PERIOD_S = 0.1
_PUBLISH_EVERY = 10

Report = tuple[bytes, str, Mapping[str, Any]]


class Diagnostics:
    """Publishes what `check` returns (level, sentence, values) on /diagnostics, in wall time.

    Make it in a node's `set_up`: the node's clean-up ends it.
    """

    def __init__(self, node: Node, hardware_id: str, check: Callable[[], Report]) -> None:
        self._node = node
        self._hardware_id = hardware_id
        self._check = check
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._last: tuple[bytes, str] | None = None
        self._repeats = 0
        # A stopped simulation must still be reported, so the timer does not follow the node's clock.
        node.create_timer(_CHECK_PERIOD_S, self._tick, clock=STEADY)

    def _tick(self) -> None:
        level, message, values = self._check()
        changed = (level, message) != self._last
        self._repeats += 1
        if not changed and self._repeats < _PUBLISH_EVERY:
            return
        if changed and level == ERROR:
            self._node.get_logger().error(message)
        self._last, self._repeats = (level, message), 0
        self._publisher.publish(self._message(level, message, values))

    def _message(self, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticArray:
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message=message,
            hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        return array


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
