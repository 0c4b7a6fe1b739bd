"""The simulation as a running machine: a thread that steps the world, and commands that come from other threads."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from openpi_sim.controller import Controller
from openpi_sim.pacing import Pacer
from openpi_sim.world import Cameras, World

_STREAM = 3  # consecutive steps with a command that make a stream of commands


class Observer(Protocol):
    """Told what happens, on the simulation's thread. Times are simulated nanoseconds; they never go back."""

    def on_episode(self, episode: int) -> None:
        """A reset started this episode; the first one is 1."""

    def on_step(self, time_ns: int, world: World) -> None:
        """The world advanced to `time_ns`."""

    def on_image(self, time_ns: int, camera: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """A camera saw this at `time_ns`, the time of the step before."""

    def on_failure(self, error: Exception) -> None:
        """The simulation ended by itself, for this reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the simulation runs.

    Attributes:
        cameras: which cameras are rendered; none needs no rendering library.
        width, height: size of their images in pixels.
        steps_per_image: control steps from one image of a camera to its next.
        max_real_time_factor: most simulated seconds per wall second, 0 for no limit.
        command_wait: most wall seconds a step waits for the next command of a controller that has sent one on every
            step so far. On a busy machine simulated time waits for the controller instead of outrunning it.
        reset_timeout: wall seconds after which a reset has failed.
    """

    cameras: tuple[str, ...] = ()
    width: int = 640
    height: int = 480
    steps_per_image: int = 2
    max_real_time_factor: float = 1.0
    command_wait: float = 0.2
    reset_timeout: float = 10.0


class SimulationLoop:
    """Runs a world in a thread of its own, paused at first. Methods may be called from any thread."""

    def __init__(self, world: World, settings: LoopSettings, observer: Observer) -> None:
        self._world = world
        self._settings = settings
        self._observer = observer
        self._pacer = Pacer(settings.max_real_time_factor)
        self._controllers = world.controllers()
        self._changed = threading.Condition()
        self._fresh: set[str] = set()
        self._streak = dict.fromkeys(self._controllers, 0)
        self._seed: int | None = None
        self._running = False
        self._closing = False
        self._episode = 0
        self._time_ns = 0
        self._failure: Exception | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulation", daemon=True)

    @property
    def real_time_factor(self) -> float:
        """Simulated per wall seconds over about the last second."""
        return self._pacer.factor

    def start(self) -> None:
        """Start the thread, paused.

        Raises:
            RenderingError: cameras are wanted and nothing can render them.
        """
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def set_running(self, running: bool) -> None:
        """Let simulated time run, or stop it."""
        with self._changed:
            self._running = running
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread and free the renderer."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def reset(self, seed: int) -> int:
        """Start an episode with the objects where `seed` puts them; returns its number once it has begun.

        Raises:
            TimeoutError: the simulation's thread did not answer.
            Exception: what ended the simulation.
        """
        with self._changed:
            before = self._episode
            self._seed = seed
            self._changed.notify_all()
            timeout = self._settings.reset_timeout
            if not self._changed.wait_for(lambda: self._episode > before or self._over(), timeout):
                raise TimeoutError(f"The simulation did not reset within {timeout:.0f} s.")
            if self._failure is not None:
                raise self._failure
            return self._episode

    def command(self, group: str, apply: Callable[[Controller, int], None]) -> None:
        """Call `apply` with the controller of one group and the simulated time; what it raises goes to the caller."""
        with self._changed:
            apply(self._controllers[group], self._time_ns)
            self._fresh.add(group)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            with contextlib.closing(self._open_cameras()) as cameras:
                self._ready.set()
                while not self._closing:
                    self._turn(cameras)
        except Exception as error:
            if self._ready.is_set():
                self._observer.on_failure(error)
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            self._ready.set()

    def _open_cameras(self) -> Cameras:
        settings = self._settings
        return self._world.open_cameras(settings.cameras, width=settings.width, height=settings.height)

    def _turn(self, cameras: Cameras) -> None:
        if not self._prepare():
            return
        self._world.step()
        self._observer.on_step(self._time_ns, self._world)
        self._pacer.record(self._time_ns * 1e-9, time.monotonic())
        step = self._time_ns // self._world.period_ns
        for number, name in enumerate(cameras.names):  # taking turns, so that no step renders them all
            if (step + number) % self._settings.steps_per_image == 0:
                self._observer.on_image(self._time_ns, name, cameras.render(name))

    def _prepare(self) -> bool:
        """Wait until the next step is due, and set its target; false where there is none to make now."""
        with self._changed:
            if self._seed is not None:
                self._begin_episode(self._seed)
            if not self._running:
                self._changed.wait_for(self._interrupted)
                return False
            delay = self._pacer.delay(self._world.period_ns * 1e-9, time.monotonic())
            if self._changed.wait_for(self._interrupted_running, delay):
                return False
            self._await_commands()
            self._time_ns += self._world.period_ns
            targets = [controller.target(self._time_ns) for controller in self._controllers.values()]
        self._world.command(np.concatenate(targets))
        return True

    def _over(self) -> bool:
        return self._closing or self._failure is not None

    def _interrupted(self) -> bool:
        return self._running or self._interrupted_running()

    def _interrupted_running(self) -> bool:
        return self._closing or self._seed is not None

    def _await_commands(self) -> None:
        streaming = {group for group, steps in self._streak.items() if steps >= _STREAM}
        self._changed.wait_for(
            lambda: streaming <= self._fresh or self._interrupted_running(), self._settings.command_wait
        )
        self._streak = {group: steps + 1 if group in self._fresh else 0 for group, steps in self._streak.items()}
        self._fresh.clear()

    def _begin_episode(self, seed: int) -> None:
        self._seed = None
        self._world.reset(seed)
        self._controllers = self._world.controllers()
        self._streak = dict.fromkeys(self._controllers, 0)
        self._fresh.clear()
        self._episode += 1
        self._observer.on_episode(self._episode)
        self._changed.notify_all()


def follow(
    joints: Sequence[str], stamp_ns: int, after_ns: Sequence[int], positions: Sequence[Sequence[float]]
) -> Callable[[Controller, int], None]:
    """A trajectory command, its points `after_ns` from `stamp_ns`, or from its arrival where that is 0."""

    def apply(controller: Controller, now_ns: int) -> None:
        start = stamp_ns or now_ns
        controller.follow(now_ns, joints, [start + after for after in after_ns], positions)

    return apply
