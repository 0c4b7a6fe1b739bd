"""`openpi_policy_node`: cameras and joint states in, action chunks out."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from openpi_msgs.msg import ActionChunk as ActionChunkMsg
from openpi_msgs.msg import ExecutorState
from openpi_msgs.srv import LoadPolicy, SetPrompt
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_msgs.msg import String

from openpi_ros import diagnostics, lifecycle, qos
from openpi_ros.backends import Backend, make_backend
from openpi_ros.conversions import chunk_message
from openpi_ros.recording import ObservationRecorder
from openpi_ros.sensing import STATE, Sensing, SensingRules, policy_input
from openpi_ros.task_server import TaskServer
from openpi_ros.visuals import Visuals
from openpi_ros.worker import Worker
from openpi_runtime.chunk import ActionChunk
from openpi_runtime.latency import LatencyTracker
from openpi_runtime.modes import Mode
from openpi_runtime.relative import action_state, base_state
from openpi_runtime.requests import Progress, RequestPlanner
from openpi_runtime.robots import Camera, RobotSpec, load_robot
from openpi_runtime.strategies import Blend
from openpi_runtime.sync import Missing, Observation

_CLOCK_JUMP_NS = 500_000_000
# After a failed request the next one waits this long (wall time), twice as long after each further failure.
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.1, 2.0
_LOG_PERIOD_S = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """What the inference thread brings back."""

    result: dict[str, Any]
    seconds: float
    waited_s: float  # from the newest observation's arrival to the request


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    """What was asked for: `stamp_ns` and `state` are the observation's, which was whole at `arrived` (monotonic s)."""

    chunk_id: int
    stamp_ns: int
    prompt: str
    state: np.ndarray
    arrived: float


class PolicyNode(lifecycle.ManagedNode):
    """Asks its backend for a chunk whenever one is due, on a thread of its own, and publishes the answers.

    Callbacks keep the newest messages, decide by `RequestPlanner` whether to ask, and never wait.
    """

    name = "openpi_policy_node"

    def set_up(self) -> None:
        self._robot = load_robot(self.params["robot"])
        self._cameras = _chosen_cameras(self._robot, self.params["cameras"])
        self._prompt = self.params["prompt"] or self._robot.default_prompt
        self._planner = self._make_planner()
        self._waits = LatencyTracker()
        self._recorder = ObservationRecorder(self.params["record"]) if self.params["record"] else None
        self._backend: Backend | None = None
        self._sensing: Sensing | None = None
        self._active = False
        self._chunk_id = 0
        self._failures = self._failures_in_a_row = 0
        self._epoch = 0  # rises when whatever was asked so far has lost its meaning
        self._trouble = "the policy is being loaded"
        self._retry_at = 0.0
        self._asked_at: float | None = None
        self._inputs_due = 0.0
        self._now_ns = 0
        self._chunks = self.create_publisher(ActionChunkMsg, "~/action_chunk", qos.CHUNK)
        self._visuals = Visuals(self, self._robot, self.params["frame_id"])
        self.create_subscription(ExecutorState, "chunk_executor_node/state", self._on_state, qos.STATE)
        self.create_service(SetPrompt, "~/set_prompt", self._on_set_prompt)
        if topic := self.params["prompt_topic"]:
            self.create_subscription(String, topic, self._on_prompt, qos.LATCHED)
        # A group of its own: while it waits for the policy, all other callbacks go on.
        own_group = ReentrantCallbackGroup()
        self.create_service(LoadPolicy, "~/load_policy", self._on_load_policy, callback_group=own_group)
        self._worker = Worker(self, "inference")
        self.resources.callback(self._close)
        self._tasks = TaskServer(self, self.set_prompt, self.params["task_hold_timeout"])
        self.resources.callback(self._tasks.close)
        diagnostics.Diagnostics(self, self._robot.name, self._diagnose)
        self._worker.submit(lambda: self._load(self.params), self._on_first_policy)

    def set_active(self, active: bool) -> None:
        self._active = active
        self._forget()
        if active:
            self._await_inputs()

    def on_live_parameters(self, changed: dict[str, Any]) -> None:
        if "prompt" in changed:
            self.set_prompt(changed["prompt"])

    def set_prompt(self, prompt: str) -> None:
        """The instruction for the chunks asked for from now on; empty takes the robot's default."""
        self._prompt = prompt or self._robot.default_prompt
        if self._backend is not None:
            self._worker.submit(self._backend.reset)

    # Loading.

    def _load(self, params: Mapping[str, Any]) -> Backend:
        return make_backend(params["backend"], self, dict(params), self._robot)

    def _on_first_policy(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self.give_up(f"Could not load the policy (backend {self.params['backend']}): {outcome}")
            return
        self._use(outcome)

    def _use(self, backend: Backend) -> None:
        self._backend = backend
        self._trouble = ""
        cameras = self._cameras if backend.uses_images else ()
        if self._sensing is None:
            rules = SensingRules(
                camera_max_age_ns=_ns(self.params["camera_max_age"]),
                joint_max_age_ns=_ns(self.params["joint_max_age"]),
                max_skew_ns=_ns(self.params["max_skew"]),
            )
            self._sensing = Sensing(self, self._robot, cameras, rules, self._consider)
            self.get_logger().info(f"Ready: backend {self.params['backend']}, prompt {self._prompt!r}.")
            self._await_inputs()

    def _close(self) -> None:
        if self._backend is not None:
            self._worker.submit(self._backend.close)
        self._worker.close()

    async def _on_load_policy(self, request: LoadPolicy.Request, response: LoadPolicy.Response) -> LoadPolicy.Response:
        """Loads beside the running policy; that one stays where loading fails."""
        params = {**self.params, "backend": "local", "config": request.config, "checkpoint": request.checkpoint}
        done: Future = Future()
        self._worker.submit(lambda: self._load(params), done.set_result)
        outcome = await done
        response.success = not isinstance(outcome, Exception)
        response.message = "" if response.success else str(outcome)
        if response.success:
            if self._backend is not None:
                self._worker.submit(self._backend.close)
            self._forget()
            self._use(outcome)
        return response

    # Asking.

    def _make_planner(self) -> RequestPlanner:
        delay = self.params["rtc_delay"]
        return RequestPlanner(
            self.params["strategy"],
            self._robot.period_ns,
            interval_steps=self.params["request_interval"] or self._robot.executed_steps,
            guidance_weight=self.params["guidance_weight"],
            delay=None if delay < 0 else delay,
            execution_horizon=self.params["rtc_execution_horizon"],
            blend=Blend(schedule=self.params["mask_schedule"], seconds=self.params["blend_time"]),
        )

    def _consider(self) -> None:
        """Asks for a chunk if one is due and the observation is complete."""
        sensing, now_ns = self._sensing, self.get_clock().now().nanoseconds
        if sensing is None or self._jumped(sensing, now_ns) or not self._active:
            return
        reference_ns = sensing.reference_ns()
        if reference_ns is None or time.monotonic() < self._retry_at or not self._planner.due(reference_ns):
            return
        observation = sensing.observe(reference_ns, now_ns)
        if not isinstance(observation, Missing):
            self._ask(observation)

    def _jumped(self, sensing: Sensing, now_ns: int) -> bool:
        """Whether the clock went back: then nothing received so far belongs to now. Ahead, it grows old by itself."""
        before, self._now_ns = self._now_ns, now_ns
        if before == 0 or now_ns - before >= -_CLOCK_JUMP_NS or now_ns == 0:
            return False
        self.get_logger().warning(f"The clock went back by {(before - now_ns) / 1e9:.2f} s; starting afresh.")
        sensing.clear()
        self._forget()
        return True

    def _forget(self) -> None:
        """Drops what was asked before: its answer will belong to another time, task or policy."""
        self._epoch += 1
        self._asked_at = None
        self._planner.reset()

    def _ask(self, observation: Observation) -> None:
        backend, layout = self._backend, self._robot.observation
        assert backend is not None
        self._chunk_id += 1
        request = _Request(
            chunk_id=self._chunk_id,
            stamp_ns=observation.stamp_ns,
            prompt=self._prompt,
            state=observation.values[STATE],
            arrived=time.monotonic(),
        )
        fields = self._planner.ask(request.stamp_ns, base_state(self._robot, request.state))

        def infer() -> _Answer:
            obs = policy_input(layout, observation, request.prompt) | fields
            started = time.monotonic()
            result = backend.infer(obs)
            answer = _Answer(result=result, seconds=time.monotonic() - started, waited_s=started - request.arrived)
            if self._recorder is not None:
                self._recorder.save(request.chunk_id, obs, result)
            return answer

        epoch = self._epoch

        def answered(outcome: Any) -> None:
            if epoch == self._epoch:
                self._on_answer(outcome, request)

        self._asked_at = request.arrived
        self._worker.submit(infer, answered)

    def _on_answer(self, outcome: Any, request: _Request) -> None:
        self._asked_at = None
        if not isinstance(outcome, Exception):
            try:
                chunk = self._chunk(outcome, request)
            except ValueError as error:
                outcome = error
            else:
                self._waits.add(outcome.waited_s)
                self._publish(chunk, request.state, outcome.seconds)
                return
        self._failures += 1
        self._trouble = f"no chunk: {outcome}"
        self._retry_at = time.monotonic() + min(_BACK_OFF_S * 2**self._failures_in_a_row, _LONGEST_BACK_OFF_S)
        self._failures_in_a_row += 1
        self._planner.failed()
        self.get_logger().error(self._trouble, throttle_duration_sec=_LOG_PERIOD_S)

    def _publish(self, chunk: ActionChunk, state: np.ndarray, seconds: float) -> None:
        self._trouble = ""
        self._failures_in_a_row = 0
        self._planner.answered(chunk, self.get_clock().now().nanoseconds, seconds)
        if self._active:
            self._tasks.latency_ms = chunk.pipeline_ms
            self._chunks.publish(chunk_message(chunk, self.params["frame_id"]))
            self._visuals.show(chunk, action_state(self._robot, state))

    def _chunk(self, answer: _Answer, request: _Request) -> ActionChunk:
        actions = np.asarray(answer.result["actions"], np.float64)
        names = self._robot.action_names
        if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != len(names):
            raise ValueError(
                f"the policy answered with actions of shape {actions.shape}, but robot {self._robot.name} takes "
                f"[horizon, {len(names)}]: {', '.join(names)}. Check config and robot."
            )
        if not np.isfinite(actions).all():  # real-time chunking would hand it on to the next request
            raise ValueError("the policy answered with NaN or infinity. Check its normalisation statistics.")
        timing = answer.result.get("policy_timing") or {}
        return ActionChunk(
            chunk_id=request.chunk_id,
            stamp_ns=request.stamp_ns,
            period_ns=self._robot.period_ns,
            actions=actions,
            action_names=names,
            frozen_steps=int(answer.result.get("rtc/frozen_steps", 0)),
            prompt=request.prompt,
            inference_ms=float(timing.get("infer_ms", answer.seconds * 1e3)),
            pipeline_ms=(time.monotonic() - request.arrived) * 1e3,
        )

    def _on_state(self, message: ExecutorState) -> None:
        mode = Mode(message.mode)
        self._planner.on_progress(
            Progress(
                mode=mode,
                chunk_id=message.chunk_id,
                next_step=message.next_step,
                steps_left=message.steps_left,
            )
        )
        self._tasks.on_state(mode, message.reason)
        self._consider()

    def _on_prompt(self, message: String) -> None:
        self.set_prompt(message.data)

    def _on_set_prompt(self, request: SetPrompt.Request, response: SetPrompt.Response) -> SetPrompt.Response:
        self.set_prompt(request.prompt)
        response.success = True
        response.message = f"The prompt is {self._prompt!r}."
        return response

    # Reporting.

    def _await_inputs(self) -> None:
        """Says, once, which inputs have not come some time after activation, and what to do."""
        if self._sensing is None or not self._active:
            return
        self._inputs_due = time.monotonic() + self.params["startup_timeout"]

        def check() -> None:
            timer.cancel()
            missing = self._sensing.missing(self.get_clock().now().nanoseconds) if self._sensing else None
            if missing is not None:
                expected = ", ".join(self._sensing.topics.values()) if self._sensing else ""
                self.get_logger().error(
                    f"No request can be made: {missing}. Topics expected: {expected}. Start the drivers, or remap."
                )

        timer = self.create_timer(self.params["startup_timeout"], check, clock=diagnostics.STEADY)

    def _diagnose(self) -> diagnostics.Report:
        values = self._values()
        if self._trouble or self._sensing is None:
            return diagnostics.ERROR if self._failures else diagnostics.WARN, self._trouble, values
        missing = self._sensing.missing(self.get_clock().now().nanoseconds)
        if missing is not None:
            starting = time.monotonic() < self._inputs_due and all(gap.age_s is None for gap in missing.gaps)
            return diagnostics.WARN if starting else diagnostics.ERROR, missing.steady, values
        slow = self._asked_at is not None and time.monotonic() - self._asked_at > self.params["request_timeout"]
        if slow:
            return diagnostics.ERROR, f"a request has taken more than {self.params['request_timeout']:g} s", values
        return diagnostics.OK, "active" if self._active else "inactive", values

    def _values(self) -> dict[str, Any]:
        latency = self._planner.latency
        values: dict[str, Any] = {
            "backend": self.params["backend"],
            "prompt": self._prompt,
            "chunks": latency.requests,
            "failures": self._failures,
            "latency_p50_ms": latency.quantile(0.5) * 1e3,
            "latency_p99_ms": latency.quantile(0.99) * 1e3,
            "observation_to_request_p50_ms": self._waits.quantile(0.5) * 1e3,
            "observation_to_request_p99_ms": self._waits.quantile(0.99) * 1e3,
            "delay_steps": self._planner.delays.expect(),
        }
        if self._sensing is not None:
            ages = self._sensing.ages_s(self.get_clock().now().nanoseconds)
            values |= {f"{name}_age_s": age for name, age in ages.items()}
            values |= {f"{name}_hz": rate.hz() for name, rate in self._sensing.rates.items()}
        return values


def _chosen_cameras(robot: RobotSpec, names: Sequence[str]) -> tuple[Camera, ...]:
    known = {camera.name: camera for camera in robot.cameras}
    for name in names:
        if name not in known:
            raise ValueError(f"Robot {robot.name} has no camera {name!r}; its cameras: {', '.join(known)}.")
    return tuple(known[name] for name in names) if names else tuple(c for c in robot.cameras if c.required)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def main(args: Sequence[str] | None = None) -> int:
    """The process `openpi_policy_node`."""
    return lifecycle.run(PolicyNode, args)


if __name__ == "__main__":
    sys.exit(main())
