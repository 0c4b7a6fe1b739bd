import threading

import numpy as np
import pytest

from openpi_sim.controller import JointController
from openpi_sim.loop import LoopSettings, SimulationLoop, follow

PERIOD_NS = 20_000_000
JOINTS = ("elbow", "gripper")
START = [0.1, 1.0]


class Twins:
    """Two arms that are at once where they are told to be."""

    period_ns = PERIOD_NS

    def __init__(self):
        self.state = np.zeros(4)

    def controllers(self):
        return {"left": JointController(JOINTS, START), "right": JointController(JOINTS, START)}

    def reset(self, seed):
        self.state = np.array(START * 2)

    def command(self, target):
        self.target = target

    def step(self):
        self.state = self.target

    def open_cameras(self, names, *, width, height):
        return Blind()


class Blind:
    names = ()

    def close(self):
        pass


class Recorder:
    def __init__(self) -> None:
        self.steps: list[tuple[int, np.ndarray]] = []
        self.episodes: list[int] = []
        self.progress = threading.Condition()
        self.answer = lambda: None

    def on_episode(self, episode):
        self.episodes.append(episode)

    def on_step(self, time_ns, world):
        with self.progress:
            self.steps.append((time_ns, world.state.copy()))
            self.progress.notify_all()
        self.answer()

    def on_image(self, time_ns, camera, image):
        raise AssertionError("no camera was asked for")

    def on_failure(self, error):
        raise AssertionError(error)

    def wait_for(self, steps: int) -> None:
        with self.progress:
            assert self.progress.wait_for(lambda: len(self.steps) >= steps, 30)


@pytest.fixture
def running():
    recorder = Recorder()
    loop = SimulationLoop(Twins(), LoopSettings(max_real_time_factor=0, command_wait=5.0), recorder)
    loop.start()
    yield loop, recorder
    loop.close()


def test_time_stands_still_until_it_is_let_run_and_then_advances_by_the_period(running):
    loop, recorder = running
    assert recorder.steps == []
    loop.set_running(True)
    recorder.wait_for(20)
    loop.set_running(False)
    assert np.array_equal(np.diff([time for time, _ in recorder.steps]), [PERIOD_NS] * (len(recorder.steps) - 1))


def test_a_reset_starts_an_episode_and_time_goes_on(running):
    loop, recorder = running
    loop.set_running(True)
    loop.command("left", lambda controller, _: controller.forward([0.5, 1.0]))
    recorder.wait_for(30)
    np.testing.assert_array_equal(recorder.steps[-1][1], [0.5, 1.0, *START])
    assert loop.reset(4) == 1
    done = len(recorder.steps)
    recorder.wait_for(done + 5)
    assert recorder.episodes == [1]
    assert recorder.steps[done + 2][0] > recorder.steps[done - 1][0]
    np.testing.assert_array_equal(recorder.steps[done + 2][1], START * 2)


def test_a_reset_works_while_time_stands_still(running):
    loop, recorder = running
    assert loop.reset(1) == 1
    assert loop.reset(1) == 2
    assert recorder.steps == []


def test_simulated_time_waits_for_a_controller_that_has_kept_pace(running):
    loop, recorder = running
    commands = 10

    def answer():  # each step, until it falls silent
        if len(recorder.steps) <= commands:
            loop.command("left", follow(JOINTS, 0, [PERIOD_NS], [START]))

    recorder.answer = answer
    loop.set_running(True)
    recorder.wait_for(commands + 1)
    with recorder.progress:
        assert not recorder.progress.wait_for(lambda: len(recorder.steps) > commands + 1, 0.3)


def test_a_bad_command_is_told_to_its_sender(running):
    loop, _ = running
    with pytest.raises(ValueError, match="at least one point"):
        loop.command("left", follow(JOINTS, 0, [], []))
