import threading

import numpy as np
import pytest

from openpi_sim.aloha import arms
from openpi_sim.aloha.loop import LoopSettings, SimulationLoop, follow
from openpi_sim.aloha.world import CONTROL_PERIOD_NS, AlohaWorld

JOINTS = (*arms.ARM_JOINTS, "gripper")


class Recorder:
    def __init__(self) -> None:
        self.steps: list[tuple[int, np.ndarray]] = []
        self.episodes: list[int] = []
        self.progress = threading.Condition()

    def on_episode(self, episode):
        self.episodes.append(episode)

    def on_step(self, time_ns, world):
        with self.progress:
            self.steps.append((time_ns, world.state))
            self.progress.notify_all()

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
    loop = SimulationLoop(AlohaWorld(), LoopSettings(max_real_time_factor=0, command_wait=5.0), recorder)
    loop.start()
    yield loop, recorder
    loop.close()


def test_time_stands_still_until_it_is_let_run_and_then_advances_by_the_period(running):
    loop, recorder = running
    assert recorder.steps == []
    loop.set_running(True)
    recorder.wait_for(20)
    loop.set_running(False)
    assert np.array_equal(
        np.diff([time for time, _ in recorder.steps]), [CONTROL_PERIOD_NS] * (len(recorder.steps) - 1)
    )


def test_a_reset_starts_an_episode_and_time_goes_on(running):
    loop, recorder = running
    loop.set_running(True)
    loop.command("left", lambda controller, _: controller.forward([0.5, *arms.start_state()[1:7]]))
    recorder.wait_for(30)
    assert recorder.steps[-1][1][0] > 0.2
    assert loop.reset(4) == 1
    done = len(recorder.steps)
    recorder.wait_for(done + 5)
    assert recorder.episodes == [1]
    assert recorder.steps[done + 2][0] > recorder.steps[done - 1][0]
    np.testing.assert_allclose(recorder.steps[done + 2][1], arms.start_state(), atol=0.02)


def test_a_reset_works_while_time_stands_still(running):
    loop, recorder = running
    assert loop.reset(1) == 1
    assert loop.reset(1) == 2
    assert recorder.steps == []


def test_simulated_time_waits_for_a_controller_that_has_kept_pace(running):
    loop, recorder = running
    start = arms.start_state()[:7]
    loop.set_running(True)
    for _ in range(40):  # a controller that answers each step
        loop.command("left", follow(JOINTS, 0, [CONTROL_PERIOD_NS], [start]))
        recorder.wait_for(len(recorder.steps) + 1)
    before = len(recorder.steps)
    with recorder.progress:
        recorder.progress.wait_for(lambda: len(recorder.steps) > before + 1, 0.3)
    assert len(recorder.steps) <= before + 1


def test_a_bad_command_is_told_to_its_sender(running):
    loop, _ = running
    with pytest.raises(ValueError, match="at least one point"):
        loop.command("left", follow(JOINTS, 0, [], []))
