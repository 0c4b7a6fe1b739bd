"""Commands a running stack from a user's script, without a node of their own.

with PolicyCommander() as robot:
    robot.bring_up()
    robot.set_prompt("transfer cube")
    robot.run_for(10.0)
    print(robot.state)
"""

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from openpi_msgs.msg import ExecutorState
from openpi_msgs.srv import SetPrompt
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from openpi_ros import qos
from openpi_runtime.modes import Mode

POLICY = "openpi_policy_node"
EXECUTOR = "chunk_executor_node"
_POLL_S = 0.02


class CommandError(RuntimeError):
    """A node did not answer, or refused; says which and why."""


class PolicyCommander:
    """Talks to the policy node and the executor of one robot. Methods block and may be called from any thread.

    Args:
        namespace: the robot's namespace.
        use_sim_time: whether durations are counted on /clock.
        timeout: seconds of wall time that a service may take.
    """

    def __init__(self, namespace: str = "", *, use_sim_time: bool = False, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._context = Context()
        rclpy.init(context=self._context)
        sim_time = Parameter("use_sim_time", value=use_sim_time)
        self.node = Node("policy_commander", context=self._context, namespace=namespace, parameter_overrides=[sim_time])
        self._state: ExecutorState | None = None
        self.node.create_subscription(ExecutorState, f"{EXECUTOR}/state", self._on_state, qos.STATE)
        self._clients: dict[str, Client] = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="commander", daemon=True)
        self._thread.start()

    def __enter__(self) -> "PolicyCommander":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the robot goes on as it is."""
        rclpy.try_shutdown(context=self._context)
        self._thread.join(2.0)
        self.node.destroy_node()

    @property
    def state(self) -> ExecutorState | None:
        """The executor's newest report; None before the first."""
        return self._state

    def bring_up(self, timeout: float = 60.0) -> None:
        """Waits until both nodes are there, and configures and activates those that are not yet.

        Raises:
            CommandError: a node did not appear or could not be started in time.
        """
        deadline = time.monotonic() + timeout
        for name in (EXECUTOR, POLICY):
            while (label := self._lifecycle(name, deadline)) != "active":
                if time.monotonic() > deadline:
                    raise CommandError(f"{name} is {label} after {timeout:g} s; its log says why.")
                time.sleep(0.2)
        self.wait_for(lambda: self._state is not None, timeout, f"a report on {EXECUTOR}/state")

    def set_prompt(self, prompt: str) -> None:
        """Sets the instruction for the chunks asked for from now on."""
        self._checked(POLICY, self.call(SetPrompt, f"{POLICY}/set_prompt", SetPrompt.Request(prompt=prompt)))

    def start(self) -> None:
        """Lets the executor run. Raises CommandError if it needs a reset first."""
        self._checked(EXECUTOR, self.call(SetBool, f"{EXECUTOR}/run", SetBool.Request(data=True)))

    def stop(self) -> None:
        """Stops the executor: it commands nothing any more."""
        self._checked(EXECUTOR, self.call(SetBool, f"{EXECUTOR}/run", SetBool.Request(data=False)))

    def run_for(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Runs for so long on the robot's clock, or until `until()`; stops in any case.

        Raises:
            CommandError: the executor could not run, or stopped in a mode that needs a reset.
        """
        self.start()
        try:
            end = self.now() + seconds
            while self.now() < end and not until():
                if self._state is not None and self._state.mode == Mode.ESTOP:
                    raise CommandError(f"The executor stopped: {self._state.reason}")
                time.sleep(_POLL_S)
        finally:
            self.stop()

    def estop(self) -> None:
        """Emergency stop, latched until `reset`."""
        self._checked(EXECUTOR, self.call(Trigger, f"{EXECUTOR}/estop", Trigger.Request()))

    def reset(self) -> None:
        """Releases an emergency stop or a HOLD for a limit."""
        self._checked(EXECUTOR, self.call(Trigger, f"{EXECUTOR}/reset", Trigger.Request()))

    def reset_simulation(self, seed: int, simulator: str = "aloha_sim_node", **parameters: Any) -> None:
        """Starts an episode of the simulator with its objects where `seed` and its other live `parameters` put them.

        Raises:
            CommandError: it refuses them, or does not answer.
        """
        values = {"seed": seed, **parameters}
        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParameters.Request(parameters=messages)
        for result in self.call(SetParameters, f"{simulator}/set_parameters", request).results:
            if not result.successful:
                raise CommandError(f"{simulator}: {result.reason}")
        self._checked(simulator, self.call(Trigger, f"{simulator}/reset", Trigger.Request()))

    def now(self) -> float:
        """Seconds on the robot's clock."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Calls a service by its relative name.

        Raises:
            CommandError: it is not there, or did not answer in time.
        """
        client = self._clients.setdefault(name, self.node.create_client(kind, name))
        if not client.wait_for_service(self._timeout):
            raise CommandError(f"There is no service {client.srv_name}; is the stack running, in this namespace?")
        future = client.call_async(request)
        self.wait_for(future.done, self._timeout, f"an answer of {client.srv_name}")
        return future.result()

    def wait_for(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Waits in wall time. Raises CommandError, which names `what`, if the condition does not come true."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise CommandError(f"There was no {what.removeprefix('a ').removeprefix('an ')} within {timeout:g} s.")
            time.sleep(_POLL_S)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while self._context.ok():
                self._executor.spin_once(timeout_sec=0.1)

    def _on_state(self, message: ExecutorState) -> None:
        self._state = message

    def _lifecycle(self, name: str, deadline: float) -> str:
        """The node's state; asks for the transition that leads on from it."""
        client = self._clients.setdefault(f"{name}/get_state", self.node.create_client(GetState, f"{name}/get_state"))
        if not client.wait_for_service(max(0.1, deadline - time.monotonic())):
            raise CommandError(f"There is no node {name}; is the stack running, in this namespace?")
        state = self.call(GetState, f"{name}/get_state", GetState.Request()).current_state
        step = {
            State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
            State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
        }.get(state.id)
        if step is not None:
            request = ChangeState.Request(transition=Transition(id=step))
            self.call(ChangeState, f"{name}/change_state", request)
        return str(state.label)

    @staticmethod
    def _checked(node: str, response: Any) -> None:
        if not response.success:
            raise CommandError(f"{node} refused: {response.message}")
