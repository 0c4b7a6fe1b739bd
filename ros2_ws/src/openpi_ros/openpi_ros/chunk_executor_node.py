"""`chunk_executor_node`: executes action chunks. All it decides is decided in `openpi_runtime.executor`."""

import gc
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from openpi_msgs.msg import ActionChunk, ExecutorState
from rclpy.clock import ROSClock
from std_srvs.srv import SetBool, Trigger

from openpi_ros import diagnostics, lifecycle, qos, realtime
from openpi_ros.conversions import chunk_from_message, time_ns, to_time
from openpi_ros.outputs import RobotOutput
from openpi_ros.robot_state import StateMessage, reading, state_topics
from openpi_ros.tick_statistics import TickStatistics
from openpi_ros.ticker import Ticker
from openpi_runtime.briefing import briefing
from openpi_runtime.executor import Executor, ExecutorRules, TickResult
from openpi_runtime.kinematics import EndEffectors, command_limits
from openpi_runtime.modes import Mode
from openpi_runtime.robot_kinematics import robot_kinematics
from openpi_runtime.robots import RobotSpec, load_robot
from openpi_runtime.safety import Box, SafetyRules
from openpi_runtime.strategies import Strategy, make_strategy

# The default of 5 ms would let another thread delay a tick by as much; much less would break into taking a chunk in.
_SWITCH_INTERVAL_S = 0.0005
# Of every thread but the tick's: one that is put off while it holds the interpreter's lock would put off the tick.
_PRIORITY = 10
_LOG_PERIOD_S = 1.0


class ChunkExecutorNode(lifecycle.ManagedNode):
    """Ticks at the robot's rate on the node's clock, in a thread of its own, and commands what is due.

    Callbacks and the tick share the executor under one lock that is held for fractions of a millisecond.
    """

    name = "chunk_executor_node"

    def set_up(self) -> None:
        self._robot = load_robot(self.params["robot"])
        self._executor = make_executor(self._robot, self.params)
        self._lock = threading.Lock()
        self._statistics = TickStatistics()
        self._mode = Mode.IDLE
        self._ticker: Ticker | None = None
        self._output = self._make_output()
        self.resources.callback(self._output.close)
        self._state = self.create_publisher(ExecutorState, "~/state", qos.STATE)
        # rclpy gives what the callback takes; its annotation knows messages alone.
        self.create_subscription(ActionChunk, self.params["chunk_topic"], self._on_chunk, qos.CHUNK)  # type: ignore[arg-type]
        for topic, kind in state_topics(self._robot).items():
            self._listen(topic, kind)
        self.create_service(SetBool, "~/run", self._on_run)
        self.create_service(Trigger, "~/estop", self._on_estop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        diagnostics.Diagnostics(self, self._robot.name, self._diagnose)
        gc.collect()
        gc.freeze()  # what lives as long as the node is not looked at by every collection

    def set_active(self, active: bool) -> None:
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop()
            self._output.stop()
        with self._lock:
            self._executor.run(active and self.params["autorun"])
        if active:
            self._ticker = Ticker(cast(ROSClock, self.get_clock()), self._robot.period_ns, self._tick)
            self._ticker.start()

    def _make_output(self) -> RobotOutput:
        """The way to the controllers; says what will be commanded, and within which limits."""
        controller = self.params["controller"] or self._robot.controller
        kind = {"simulated": self.params["simulated"], "dry_run": self.params["dry_run"]}
        limits, rules = self._executor.limits, self._executor.rules
        output = RobotOutput(self, self._robot, limits, controller, **kind)
        self.get_logger().info(briefing(self._robot, limits, rules, controller=controller, names=output.names, **kind))
        return output

    def _listen(self, topic: str, kind: type) -> None:
        def on_state(message: StateMessage) -> None:
            now_ns = self._now_ns()
            stamp_ns = time_ns(message.header.stamp)
            names, positions = reading(message)
            with self._lock:
                self._executor.on_joint_state(topic, stamp_ns, names, positions, now_ns)

        self.create_subscription(kind, topic, on_state, qos.SENSOR)

    def _on_chunk(self, message: ActionChunk, info: Mapping[str, int]) -> None:
        arrived_ns = _arrived_ns(info)
        try:
            chunk = chunk_from_message(message)
        except ValueError as error:
            problem = f"wrong size: {error}"
            with self._lock:
                self._executor.refuse("size")
        else:
            with self._lock:
                problem = self._executor.on_chunk(chunk, self._now_ns())
                if not problem:  # before a tick can command from it
                    self._statistics.accepted(message.chunk_id, arrived_ns, time.monotonic_ns())
        if problem:
            text = f"Refused chunk {message.chunk_id}: {problem}"
            self.get_logger().warning(text, throttle_duration_sec=_LOG_PERIOD_S)
        elif self._mode is Mode.HOLD and self._ticker is not None:
            self._ticker.poke()  # nothing moves, so there is no rhythm to keep and no reason to wait

    def _tick(self, now_ns: int, monotonic_ns: int, late_ns: int, due: bool) -> None:
        try:
            with self._lock:
                decide = self._executor.tick if due else self._executor.watch
                result = decide(now_ns, monotonic_ns)
            if result.command is not None and result.velocity is not None:
                self._output.publish(result.command, result.velocity, result.measured)
            elif due or result.mode is not Mode.RUNNING:
                self._output.stop()
            if due:
                self._statistics.ticked(late_ns, result.chunk_id, monotonic_ns, time.monotonic_ns())
            self._publish_state(now_ns, result, late_ns)
            self._note(result)
        except Exception as error:  # a thread that dies quietly would leave the robot without a watch
            self.give_up(f"The control tick failed: {type(error).__name__}: {error}")
            raise

    def _publish_state(self, now_ns: int, result: TickResult, late_ns: int) -> None:
        state = ExecutorState(
            mode=result.mode.value,
            chunk_id=result.chunk_id,
            next_step=result.next_step,
            steps_left=result.steps_left,
            starved_ticks=result.starved_ticks,
            clamped_ticks=result.clamped_ticks,
            tick_jitter_ms=late_ns / 1e6,
            reason=result.reason,
        )
        state.header.stamp = to_time(max(0, now_ns))
        self._state.publish(state)

    def _note(self, result: TickResult) -> None:
        if result.mode is not self._mode:
            because = f": {result.reason}" if result.reason else ""
            self.get_logger().info(f"{self._mode.name} -> {result.mode.name}{because}")
            self._mode = result.mode

    def _on_run(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            response.message = self._executor.run(request.data)
        response.success = not response.message
        return response

    def _on_estop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._executor.estop()
        response.success = True
        response.message = "Stopped; ~/reset releases."
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            response.message = self._executor.reset()
        response.success = not response.message
        return response

    def _diagnose(self) -> diagnostics.Report:
        now_ns = self._now_ns()
        with self._lock:
            health = self._executor.health(now_ns)
            values = self._executor.figures(now_ns)
        level = diagnostics.ERROR if health.error else diagnostics.WARN if health.warning else diagnostics.OK
        return level, health.message, values | self._statistics.figures()

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def _arrived_ns(info: Mapping[str, int]) -> int:
    """When a message came, on the monotonic clock: before rclpy noticed it. Now where the middleware does not tell."""
    came_ns = info["received_timestamp"]
    return time.monotonic_ns() - (max(0, time.time_ns() - came_ns) if came_ns else 0)


def make_executor(robot: RobotSpec, params: dict[str, Any]) -> Executor:
    """The executor that a node's parameters describe."""
    kinematics = robot_kinematics(robot)
    return Executor(
        robot,
        command_limits(robot, kinematics),
        _strategy(robot, params),
        _rules(params),
        EndEffectors(robot, kinematics),
    )


def _strategy(robot: RobotSpec, params: dict[str, Any]) -> Strategy:
    settings: dict[str, dict[str, Any]] = {
        "open_loop": {"steps": params["executed_steps"] or robot.executed_steps},
        "temporal_ensemble": {"m": params["ensemble_m"]},
        "rtc": {"schedule": params["mask_schedule"], "blend_s": params["blend_time"]},
    }
    return make_strategy(params["strategy"], **settings.get(params["strategy"], {}))


def _rules(params: dict[str, Any]) -> ExecutorRules:
    return ExecutorRules(
        joint_timeout_s=params["joint_timeout"],
        clock_stop_s=params["clock_stop"],
        clock_jump_s=params["clock_jump"],
        chunk_silence_s=params["chunk_silence"],
        first_chunk_s=params["first_chunk"],
        ramp_speed=params["ramp_speed"],
        ramp_gripper_speed=params["ramp_gripper_speed"],
        safety=SafetyRules(
            tolerance=params["limit_tolerance"],
            strikes=params["velocity_strikes"],
            max_step=params["max_step"],
            workspace=_workspace(params["workspace"]),
        ),
    )


def _workspace(corners: Sequence[float]) -> Box | None:
    if not corners:
        return None
    if len(corners) != 6 or any(low >= high for low, high in zip(corners[:3], corners[3:], strict=False)):
        raise ValueError(
            f"Parameter 'workspace' is {list(corners)}, but must be empty or six numbers: x, y, z of the lower corner, "
            "then of the upper one, each larger than below."
        )
    return Box(lower=np.array(corners[:3]), upper=np.array(corners[3:]))


def main(args: Sequence[str] | None = None) -> int:
    """The process `chunk_executor_node`."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    realtime.prefer(_PRIORITY)
    return lifecycle.run(ChunkExecutorNode, args)


if __name__ == "__main__":
    sys.exit(main())
