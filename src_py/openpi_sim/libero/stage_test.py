"""The stage without LIBERO: a stand-in for its world."""

from typing import ClassVar

import numpy as np
import pytest

from openpi_sim.libero import stage as stage_module
from openpi_sim.libero.stage import DeltaController, LiberoStage, Scene
from openpi_sim.libero.world import Frame

MOVE = [0.1, 0.2, 0.3, 0.4, 0.5, -0.6, 1.0]
HAND = np.array([-0.2, 0.0, 1.2, 0.0, 1.0, 0.0, 0.0])


class FakeWorld:
    """Remembers how it was made and what it was told."""

    made: ClassVar[list["FakeWorld"]] = []

    def __init__(self, suite, task, *, resolution, cameras, seed):
        self.arguments = (suite, task, resolution, tuple(cameras), seed)
        self.language = f"do task {task}"
        self.actions, self.trials, self.closed = [], [], False
        FakeWorld.made.append(self)

    def reset(self, trial):
        self.trials.append(trial)
        return self.frame()

    def step(self, action):
        self.actions.append(action)
        return self.frame()

    def frame(self):
        joints = {f"robot0_joint{i}": (0.1 * i, 0.01 * i) for i in range(1, 8)}
        joints |= {"gripper0_finger_joint1": (0.04, 0.5), "gripper0_finger_joint2": (-0.03, -0.5)}
        pictures = {"agentview": np.full((4, 6, 3), len(self.actions), np.uint8)}
        return Frame(
            images=pictures,
            state=np.zeros(8),
            hand=HAND,
            joints=joints,
            objects={"bowl": HAND},
            reward=1.0,
            success=True,
        )

    def close(self):
        self.closed = True


@pytest.fixture
def stage(monkeypatch) -> LiberoStage:
    monkeypatch.setattr(FakeWorld, "made", [])
    monkeypatch.setattr(stage_module, "LiberoWorld", FakeWorld)
    made = LiberoStage(Scene(suite="spatial", task=3, trial=5))
    made.open_cameras(("agentview",), width=6, height=4)
    return made


def test_a_scene_is_loaded_once_and_its_trials_reset(stage):
    stage.reset(7)
    stage.choose(Scene(suite="spatial", task=3, trial=6))
    stage.reset(7)
    assert [(w.arguments, w.trials) for w in FakeWorld.made] == [(("spatial", 3, (4, 6), ("agentview",), 7), [5, 6])]
    assert stage.instruction == "do task 3"


@pytest.mark.parametrize(("change", "seed"), [({"task": 4}, 7), ({"suite": "goal"}, 7), ({}, 8)])
def test_another_task_suite_or_seed_is_loaded_afresh(stage, change, seed):
    stage.reset(7)
    stage.choose(Scene(**({"suite": "spatial", "task": 3, "trial": 5} | change)))
    stage.reset(seed)
    first, second = FakeWorld.made
    assert first.closed
    assert not second.closed
    assert second.arguments[:2] == (change.get("suite", "spatial"), change.get("task", 3))
    assert second.arguments[-1] == seed


def test_what_the_drivers_read(stage):
    stage.reset(7)
    reading = stage.readings()["arm"]
    values = dict(zip(reading.names, zip(reading.position, reading.velocity, strict=True), strict=True))
    assert values["panda_joint3"] == pytest.approx((0.3, 0.03))
    assert values["gripper0_finger_joint2"] == (-0.03, -0.5)  # as LIBERO's state has it
    assert values["panda_finger_joint2"] == (0.03, 0.5)  # as the URDF has it
    assert reading.hand is HAND
    assert (stage.reward, stage.success, list(stage.objects)) == (1.0, True, ["bowl"])


def test_cameras_show_the_newest_frame_and_end_the_stage(stage):
    cameras = stage.open_cameras(("agentview",), width=6, height=4)
    stage.reset(7)
    stage.command(np.array(MOVE))
    stage.step()
    assert cameras.render("agentview").max() == 1
    cameras.close()
    assert FakeWorld.made[0].closed
    with pytest.raises(RuntimeError, match="reset it"):
        stage.step()


def test_a_delta_lasts_one_step_and_the_gripper_goes_on():
    controller = DeltaController()
    np.testing.assert_array_equal(controller.target(0), [0] * 6 + [-1])
    controller.forward(MOVE)
    np.testing.assert_array_equal(controller.target(1), MOVE)
    np.testing.assert_array_equal(controller.target(2), [0] * 6 + [1])


def test_what_is_refused(stage):
    controller = DeltaController()
    for values in (MOVE[:6], [*MOVE[:6], np.nan]):
        with pytest.raises(ValueError, match="7 finite numbers"):
            controller.forward(values)
    with pytest.raises(ValueError, match="no trajectories"):
        controller.follow(0, ["x"], [1], [[0.0]])
    with pytest.raises(ValueError, match="tasks 0 to 9, not 10"):
        Scene(suite="goal", task=10, trial=0)
    with pytest.raises(ValueError, match="agentview, eye_in_hand, not top"):
        stage.open_cameras(("top",), width=6, height=4)
    with pytest.raises(ValueError, match="mirrored"):
        stage.intrinsics("agentview", 6, 4)
