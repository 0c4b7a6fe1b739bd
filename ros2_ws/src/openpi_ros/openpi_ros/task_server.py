"""The action `~/run_task`: prompt, run, stop, by one call."""

import time
from collections.abc import Callable
from typing import Any

from openpi_msgs.action import RunTask
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from openpi_ros import diagnostics, qos
from openpi_ros.conversions import time_ns
from openpi_runtime.modes import Mode
from openpi_runtime.task import CANCELLED, GOOD_ENDS, SUCCESS, TaskRules, TaskWatch

_FEEDBACK_PERIOD_S = 0.2
_ANSWER_S = 5.0  # of wall time that the executor may take to answer
_LOOK_PERIOD_S = 0.1


class TaskServer:
    """Runs one task at a time through the executor's `~/run`. Its coroutines run on the node's executor.

    A goal that comes while a task runs is refused; the first goes on.
    """

    def __init__(self, node: Node, set_prompt: Callable[[str], None], hold_timeout_s: float) -> None:
        self._node = node
        self._set_prompt = set_prompt
        self._hold_timeout_ns = round(hold_timeout_s * 1e9)
        self._watch: TaskWatch | None = None
        self._busy = False
        self._goal: ServerGoalHandle | None = None
        self._ended: Future | None = None
        self._answer: Future | None = None
        self._answer_due = 0.0
        self._spoke_at = 0.0
        self.latency_ms = 0.0  # of the newest chunk, told by its owner
        self._run = node.create_client(SetBool, "chunk_executor_node/run")
        node.create_subscription(Bool, "sim/success", self._on_success, qos.STATE)
        # Wall time: a stopped clock must still let a task be cancelled.
        node.create_timer(_LOOK_PERIOD_S, self._look, clock=diagnostics.STEADY)
        self._server = ActionServer(
            node,
            RunTask,
            "~/run_task",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def close(self) -> None:
        """Ends the server."""
        self._server.destroy()

    def on_state(self, mode: Mode, reason: str) -> None:
        """Takes one report of the executor."""
        if self._watch is None:
            return
        self._end(self._watch.on_state(self._now_ns(), mode, reason))
        if self._goal is not None and time.monotonic() - self._spoke_at >= _FEEDBACK_PERIOD_S:
            self._spoke_at = time.monotonic()
            self._goal.publish_feedback(
                RunTask.Feedback(steps=self._watch.steps, latency_ms=self.latency_ms, mode=mode.value, reason=reason)
            )

    def _on_goal(self, _: Any) -> GoalResponse:
        if self._busy:
            self._node.get_logger().warning("Refused a task: one is running; cancel it before starting another.")
            return GoalResponse.REJECT
        self._busy = True  # from here on, not only when `_execute` gets its turn: two goals may come at once
        return GoalResponse.ACCEPT

    async def _execute(self, goal: ServerGoalHandle) -> RunTask.Result:
        self._goal, self._ended = goal, Future()
        try:
            outcome = await self._run_task(goal)
        finally:
            watch, self._watch, self._goal, self._ended = self._watch, None, None, None
            self._busy = False
        if outcome == CANCELLED:
            goal.canceled()
        elif outcome in GOOD_ENDS:
            goal.succeed()
        else:
            goal.abort()
        return RunTask.Result(success=outcome in GOOD_ENDS, outcome=outcome, steps=watch.steps if watch else 0)

    async def _run_task(self, goal: ServerGoalHandle) -> str:
        if goal.request.prompt:
            self._set_prompt(goal.request.prompt)
        if refusal := await self._switch(True):
            return refusal
        limits = TaskRules(time_limit_ns=time_ns(goal.request.time_limit), hold_timeout_ns=self._hold_timeout_ns)
        self._watch = TaskWatch(limits, self._now_ns())
        assert self._ended is not None
        outcome: str = await self._ended
        stopped = await self._switch(False)
        return stopped or outcome

    async def _switch(self, running: bool) -> str:
        """Starts or stops the executor; empty where it did, else why not."""
        if not self._run.service_is_ready():
            return f"there is no service {self._run.srv_name}; is the executor running?"
        self._answer = self._run.call_async(SetBool.Request(data=running))
        self._answer_due = time.monotonic() + _ANSWER_S
        response = await self._answer
        self._answer = None
        if response is None:
            return f"{self._run.srv_name} did not answer within {_ANSWER_S:g} s; does the executor run?"
        return "" if response.success else response.message

    def _give_answer_up(self) -> None:
        """The executor may have died, or hang, after it was asked: nothing else would end the wait."""
        if self._answer is not None and not self._answer.done() and time.monotonic() > self._answer_due:
            self._run.remove_pending_request(self._answer)
            self._answer.set_result(None)
            self._run.call_async(SetBool.Request(data=False))  # should it wake and start after all

    def _on_success(self, message: Bool) -> None:
        if message.data:
            self._end(SUCCESS)

    def _look(self) -> None:
        self._give_answer_up()
        if self._goal is not None and self._goal.is_cancel_requested:
            self._end(CANCELLED)
        elif self._watch is not None:
            self._end(self._watch.look(self._now_ns()))

    def _end(self, outcome: str) -> None:
        if outcome and self._watch is not None and self._ended is not None and not self._ended.done():
            self._ended.set_result(outcome)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
