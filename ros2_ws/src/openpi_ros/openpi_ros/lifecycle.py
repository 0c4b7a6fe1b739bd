"""The base class of all nodes: a lifecycle node whose subclasses write two methods.

`set_up` makes what the node needs, `set_active` starts and stops its work. The base class declares and checks the
parameters, logs what a transition raises (rclpy swallows it), and undoes everything `set_up` made: publishers,
subscriptions, timers, services and clients by itself, all else from `self.resources`.
"""

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from openpi_ros import parameters

# How often the main thread looks whether a signal came; also the longest wait before it stops.
_SIGNAL_POLL_S = 0.1
# What a user can cause: told in one sentence, without a traceback. A single word, as of a KeyError, is a fault of ours.
_USER_ERRORS = (ValueError, LookupError, OSError, ImportError, RuntimeError)


class ManagedNode(LifecycleNode):
    """A lifecycle node with parameters from YAML, started by itself unless `autostart` is false.

    Attributes:
        params: the checked parameters by name; live ones change while the node is configured.
        resources: exit stack closed at cleanup; register what `set_up` makes besides ROS entities.
        failure: why the last transition failed, or why the node gave up; empty while all is well.
    """

    name: ClassVar[str]

    def __init__(self, **node_options: Any) -> None:
        super().__init__(self.name, automatically_declare_parameters_from_overrides=True, **node_options)
        self.params: dict[str, Any] = {}
        self.resources = contextlib.ExitStack()
        self.failure = ""
        self.finished = False
        self._specs = parameters.load_specs("common") | parameters.load_specs(self.name)
        parameters.declare(self, self._specs)
        self._own_entities = set(self._entities())
        self.add_on_set_parameters_callback(self._on_set_parameters)

    # What a subclass writes.

    def set_up(self) -> None:
        """Makes everything the node needs from `self.params`. What it raises fails the transition, and is logged."""
        raise TypeError(f"{type(self).__name__} must define set_up.")

    def set_active(self, active: bool) -> None:
        """Starts or stops the work. Not called twice with the same value."""
        raise TypeError(f"{type(self).__name__} must define set_active.")

    # What a subclass may use.

    def give_up(self, reason: str) -> None:
        """Ends the process with exit code 1 and this reason, soon. May be called from any thread."""
        self.failure = reason
        self.get_logger().fatal(reason)
        self.finished = True

    def on_live_parameters(self, changed: dict[str, Any]) -> None:
        """Called after live parameters changed. A subclass overrides it where it has to act on them."""

    # Transitions.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("configure", self._configure)
        if result is not TransitionCallbackReturn.SUCCESS:
            self._attempt("undo configure", self._tear_down, keep_failure=True)
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("activate", lambda: self.set_active(True))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("deactivate", lambda: self.set_active(False))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("clean up", self._tear_down)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.label == "active":
            self._attempt("deactivate", lambda: self.set_active(False))
        return self._attempt("shut down", self._tear_down)

    def _configure(self) -> None:
        self.params = parameters.read(self, self._specs)
        self.set_up()

    def _tear_down(self) -> None:
        resources, self.resources = self.resources, contextlib.ExitStack()
        try:
            resources.close()
        finally:
            for entity, destroy in self._entities().items():
                if entity not in self._own_entities:
                    destroy(entity)

    def _entities(self) -> dict[Any, Callable[[Any], Any]]:
        kinds = (
            (self.timers, self.destroy_timer),
            (self.subscriptions, self.destroy_subscription),
            (self.publishers, self.destroy_publisher),
            (self.services, self.destroy_service),
            (self.clients, self.destroy_client),
        )
        return {entity: destroy for entities, destroy in kinds for entity in entities}

    def _attempt(self, what: str, work: Callable[[], None], keep_failure: bool = False) -> TransitionCallbackReturn:
        try:
            work()
        except Exception as error:
            known = isinstance(error, _USER_ERRORS) and " " in str(error)
            message = f"Could not {what}: {_sentence(error)}"
            self.get_logger().error(message if known else f"{message}\n{traceback.format_exc()}")
            self.get_logger().debug(traceback.format_exc())
            if not keep_failure:
                self.failure = message
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _on_set_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        configured = bool(self.params)
        values: dict[str, Any] = {}
        for change in changes:
            if change.name not in self._specs:
                continue
            spec = self._specs[change.name]
            try:
                values[change.name] = spec.check(change.value)
            except parameters.ParameterError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if configured and not spec.live:
                reason = f"Parameter '{spec.name}' is read when the node is configured: clean up, set, configure."
                return SetParametersResult(successful=False, reason=reason)
        if configured and values:
            self.params.update(values)
            self.on_live_parameters(values)
        return SetParametersResult(successful=True)


def _sentence(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text if " " in text else f"{type(error).__name__} {text}".rstrip()


def bring_up(node: ManagedNode) -> bool:
    """Configures and activates a node; false if either failed (the node logged why)."""
    return (
        node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        and node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    )


def run(node_class: type[ManagedNode], args: Sequence[str] | None = None) -> int:
    """The main function of a node's process: brings it up, spins until SIGINT or SIGTERM, undoes everything.

    Returns:
        The exit code: 0 after a signal or a shutdown, 1 if the node could not start or gave up.
    """
    # Own handlers: rclpy's would invalidate the context before the node could be taken down in order.
    stop_signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop_signals.append(received))
    rclpy.init(args=list(args) if args is not None else sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = node_class()
    except Exception as error:
        rclpy.logging.get_logger(node_class.name).fatal(f"Could not start: {_sentence(error)}")
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value and not bring_up(node):
            return 1
        while not (stop_signals or node.finished) and rclpy.ok():
            executor.spin_once(timeout_sec=_SIGNAL_POLL_S)
        return 1 if node.finished and node.failure else 0
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        _take_down(node, executor)


def _take_down(node: ManagedNode, executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(Exception):  # already finalized, or the context is gone: nothing left to undo in order
        node.trigger_shutdown()
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.try_shutdown()
