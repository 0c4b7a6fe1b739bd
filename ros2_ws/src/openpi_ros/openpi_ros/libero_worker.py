"""Runs the LIBERO episodes it is told to on a stack, the one that is running or one of its own.

`openpi eval libero --through-ros` starts it. Speaks as `openpi_sim.libero.worker` does: one JSON job a line in, one
JSON answer a line out.
"""

import argparse
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, String

from openpi_ros import qos
from openpi_ros.commander import CommandError, PolicyCommander
from openpi_ros.conversions import image_array
from openpi_ros.own_stack import StackEnded, running_stack
from openpi_runtime.modes import Mode
from openpi_sim.libero.benchmark import Job
from openpi_sim.libero.episode import Outcome
from openpi_sim.libero.suites import find_suite
from openpi_sim.libero.worker import answer_jobs

SIMULATOR = "libero_sim_node"
_LOADING_S = 150.0  # wall time in which a stack comes up, or a reset loads a task
_FINDING_S = 30.0  # wall time in which the stack that is running is found
_STEP_S = 30.0  # wall time within which a step must come, however slow the machine


class StackEpisodes:
    """Resets the stack's simulator, lets its executor run, and counts the steps until success or the suite's limit."""

    def __init__(
        self,
        suite: str,
        *,
        seed: int,
        videos: bool,
        namespace: str = "",
        bring_up: Callable[[PolicyCommander], None] = lambda robot: robot.bring_up(_FINDING_S),
    ) -> None:
        """Connects to the stack. Raises what `bring_up` does if it is not there."""
        self._suite, self._seed = suite, seed
        self._max_steps = find_suite(suite).max_steps
        self._robot = PolicyCommander(namespace, use_sim_time=True, timeout=_LOADING_S)
        self._lock = threading.Lock()
        self._counting = False
        self._steps, self._success = 0, False
        self._frames: list[np.ndarray] = []
        self._instruction = ""
        node = self._robot.node
        node.create_subscription(Bool, "sim/success", self._on_step, qos.STATE)
        node.create_subscription(String, "sim/instruction", self._on_instruction, qos.LATCHED)
        if videos:
            node.create_subscription(Image, "agentview/image_raw", self._on_image, qos.SENSOR)
        try:
            bring_up(self._robot)
        except Exception:
            self._robot.close()
            raise

    def run(self, job: Job) -> Outcome:
        """Runs one trial of one task.

        Raises:
            CommandError: the stack does not answer, or stands still.
        """
        self._prepare(job)
        self._robot.start()
        try:
            self._await_end()
        finally:
            self._robot.stop()
        with self._lock:
            self._counting = False
            return Outcome(success=self._success, steps=self._steps, frames=self._frames)

    def close(self) -> None:
        """Ends the connection; the stack stays."""
        self._robot.close()

    def _prepare(self, job: Job) -> None:
        self._robot.stop()
        with contextlib.suppress(CommandError):  # refused unless the episode before ended beyond a limit
            self._robot.reset()
        scene = {"suite": self._suite, "task": job["task"], "trial": job["trial"]}
        self._robot.reset_simulation(self._seed, SIMULATOR, **scene)
        self._robot.wait_for(lambda: bool(self._instruction), _STEP_S, "an instruction on sim/instruction")
        self._robot.set_prompt(self._instruction)
        with self._lock:
            self._counting, self._steps, self._success, self._frames = False, 0, False, []

    def _await_end(self) -> None:
        """Until the task is solved, the steps are spent, or the executor has stopped for a limit."""
        while not self._over() and not self._stopped():
            before = self._steps
            news = functools.partial(lambda seen: self._steps > seen or self._over(), before)
            self._robot.wait_for(news, _STEP_S, f"a step of {SIMULATOR} with the executor running")

    def _over(self) -> bool:
        return self._success or self._steps >= self._max_steps

    def _stopped(self) -> bool:
        """Whether the executor holds and does not go on by itself: then it refuses to be started."""
        if self._robot.state is not None and self._robot.state.mode == Mode.HOLD:
            try:
                self._robot.start()
            except CommandError:
                return True
        return False

    def _on_step(self, message: Bool) -> None:
        state = self._robot.state
        with self._lock:
            self._counting |= state is not None and state.mode == Mode.RUNNING
            if self._counting and not self._over():
                self._steps += 1
                self._success = bool(message.data)

    def _on_instruction(self, message: String) -> None:
        self._instruction = message.data

    def _on_image(self, message: Image) -> None:
        with self._lock:
            if self._counting:
                self._frames.append(image_array(message).copy())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--videos", default="", help="folder for videos of failed episodes")
    parser.add_argument("--namespace", default="", help="of the stack that is running")
    parser.add_argument("--start-stack", type=Path, metavar="LOG", help="start a stack, whose words go to this file")
    parser.add_argument("--domain", help="ROS domain of the stack that is started")
    # One word each with its option: rclpy takes a bare name:=value for a remap.
    parser.add_argument("--stack", action="append", default=[], help="argument of the stack that is started")
    return parser.parse_args(arguments)


def connect(options: argparse.Namespace, resources: contextlib.ExitStack) -> StackEpisodes:
    """The stack that is running, or one that is started, which ends with the resources.

    Raises:
        CommandError: it is not there, or does not come up.
    """
    make = functools.partial(StackEpisodes, options.suite, seed=options.seed, videos=bool(options.videos))
    if options.start_stack is None:
        return resources.enter_context(contextlib.closing(make(namespace=options.namespace)))
    os.environ["ROS_DOMAIN_ID"] = options.domain
    words = ["libero", f"suite:={options.suite}", *options.stack]
    stack = resources.enter_context(running_stack(words, options.start_stack))
    try:
        episodes = make(bring_up=lambda robot: stack.bring_up(robot, _LOADING_S))
    except (CommandError, StackEnded) as error:
        raise CommandError(f"{error} The end of {stack.log}:\n{stack.tail()}") from error
    return resources.enter_context(contextlib.closing(episodes))


def main() -> None:
    """Answers jobs until the input ends."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that a stack of its own ends with it
    with contextlib.ExitStack() as resources:
        answer_jobs(lambda: connect(options, resources).run, options.videos)


if __name__ == "__main__":
    main()
