import io
import json

import av
import numpy as np
import pytest

from openpi_sim.libero import worker, world
from openpi_sim.libero.episode import ChunkActor, Outcome, run_episode
from openpi_sim.libero.suites import SETTLING_STEPS
from openpi_sim.libero.world import IDLE_ACTION, Frame, LiberoWorld


class FakeWorld:
    """Solved after `needed` steps."""

    language = "push it"

    def __init__(self, needed: int) -> None:
        self.needed, self.actions = needed, []

    def reset(self, trial):
        return self.frame()

    def step(self, action):
        self.actions.append(action)
        return self.frame()

    def frame(self):
        pictures = {name: np.full((20, 30, 3), len(self.actions), np.uint8) for name in ("agentview", "eye_in_hand")}
        success = len(self.actions) >= self.needed
        return Frame(
            images=pictures, state=np.arange(8.0), hand=np.zeros(7), joints={}, objects={}, reward=0.0, success=success
        )


class Policy:
    """Numbers its actions: request, step."""

    def __init__(self, horizon=10):
        self.requests, self.horizon = [], horizon

    def infer(self, obs):
        self.requests.append(obs)
        rows = [[len(self.requests), step, 0, 0, 0, 0, 1, 99] for step in range(self.horizon)]
        return {"actions": np.array(rows, np.float32)}


def run(world, policy, max_steps):
    return run_episode(world, 0, lambda _, prompt: ChunkActor(policy, prompt), max_steps=max_steps)


def test_five_of_ten_steps_are_executed_before_the_next_request():
    scene, policy = FakeWorld(needed=12), Policy()
    outcome = run(scene, policy, 220)
    assert (outcome.success, outcome.steps) == (True, 12)
    sources = [tuple(action[:2]) for action in scene.actions]  # request, step
    assert sources == [(1 + step // 5, step % 5) for step in range(12)]
    assert all(len(action) == 7 for action in scene.actions)
    request = policy.requests[1]
    assert request["observation/image"].shape == request["observation/wrist_image"].shape == (224, 224, 3)
    assert request["observation/image"].max() == 5  # what is seen after five steps
    assert request["prompt"] == "push it"
    np.testing.assert_array_equal(request["observation/state"], np.arange(8.0))


def test_an_episode_fails_at_the_step_limit_with_every_frame_kept():
    outcome = run(FakeWorld(needed=1000), Policy(), 7)
    assert (outcome.success, outcome.steps, len(outcome.frames)) == (False, 7, 7)


def test_a_policy_for_another_robot_is_told():
    with pytest.raises(ValueError, match=r"shape \(4, 8\); LIBERO needs at least \(5, 7\)"):
        run(FakeWorld(needed=3), Policy(horizon=4), 10)


def test_jobs_are_answered_and_failures_filmed(monkeypatch, tmp_path, capfd):
    outcomes = {
        0: Outcome(success=False, steps=3, frames=[np.full((32, 48, 3), 80 * i, np.uint8) for i in range(3)]),
        1: Outcome(success=True, steps=2, frames=[np.zeros((32, 48, 3), np.uint8)]),
    }
    jobs = "".join(json.dumps({"task": 4, "trial": trial}) + "\n" for trial in range(3))
    monkeypatch.setattr("sys.stdin", io.StringIO(jobs))
    monkeypatch.setattr(worker.os, "dup2", lambda source, target: None)  # standard output stays the test's
    worker.answer_jobs(lambda: lambda job: outcomes[job["trial"]], str(tmp_path))
    ready, failed, solved, lost = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert ready == {"ready": True}
    assert (failed["success"], failed["steps"], solved["success"], solved["video"]) == (False, 3, True, "")
    assert lost == {"task": 4, "trial": 2, "error": "KeyError: 2"}
    with av.open(failed["video"]) as video:
        assert video.streams.video[0].average_rate == 20
        assert [round(frame.to_ndarray(format="rgb24").mean(), -1) for frame in video.decode(video=0)] == [0, 80, 160]
    assert [path.name for path in tmp_path.iterdir()] == ["task04_trial00.mp4"]


def test_a_worker_that_cannot_start_says_why_and_takes_no_job(monkeypatch, capfd):
    def start():
        raise ConnectionError("No policy server at ws://127.0.0.1:9.")

    monkeypatch.setattr("sys.stdin", io.StringIO('{"task": 0, "trial": 0}\n'))
    monkeypatch.setattr(worker.os, "dup2", lambda source, target: None)
    worker.answer_jobs(start, "")
    assert json.loads(capfd.readouterr().out) == {"failed": "No policy server at ws://127.0.0.1:9."}


class FakeEnv:
    """What `LiberoWorld` uses of LIBERO's environment."""

    obj_of_interest = ("plate_1", "bowl_1")

    def __init__(self):
        self.calls = []

    def seed(self, seed):
        self.calls.append(("seed", seed))

    def reset(self):
        self.calls.append(("reset",))

    def set_init_state(self, state):
        self.calls.append(("state", float(state[0])))

    def step(self, action):
        self.calls.append(("step", action))
        picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
        observation = {
            "robot0_eef_pos": [1, 2, 3],
            "robot0_eef_quat": [1, 0, 0, 0],
            "robot0_gripper_qpos": [0.04, -0.04],
            "robot0_gripper_qvel": [0, 0],
            "robot0_joint_pos": np.zeros(7),
            "robot0_joint_vel": np.zeros(7),
            "agentview_image": picture,
            **{f"{name}_pos": [number, 0, 0] for number, name in enumerate(["bowl_1", "box_1", "plate_1"])},
            **{f"{name}_quat": [0, 0, 0, 1] for name in ["bowl_1", "box_1", "plate_1"]},
            "bowl_1_to_robot0_eef_pos": [9, 9, 9],
        }
        return observation, 0.5, False, {}


class FakeBenchmark:
    language = "put it there"

    def get_task(self, task):
        return self

    def get_task_init_states(self, task):
        return np.arange(5.0)[:, None]

    def get_benchmark_dict(self):
        return {"libero_goal": FakeBenchmark}


@pytest.fixture
def env(monkeypatch) -> FakeEnv:
    env = FakeEnv()
    libero = type("libero", (), {"benchmark": FakeBenchmark()})
    monkeypatch.setattr(world, "_import_libero", lambda: libero)
    monkeypatch.setattr(world, "_make_env", lambda task, resolution, cameras: env)
    return env


def test_a_reset_takes_the_trials_state_and_lets_it_settle(env):
    LiberoWorld("goal", 2, seed=7).reset(12)
    idle = ("step", IDLE_ACTION.tolist())
    assert env.calls == [("seed", 7), ("reset",), ("state", 2.0), *[idle] * SETTLING_STEPS]
    assert SETTLING_STEPS == 10
    np.testing.assert_array_equal(IDLE_ACTION, [0, 0, 0, 0, 0, 0, -1])


def test_a_frame_is_what_policies_are_given(env):
    frame = LiberoWorld("goal", 2).step(np.zeros(7))
    np.testing.assert_array_equal(frame.images["agentview"][0, 0], [15, 16, 17])  # the last pixel is the first
    np.testing.assert_allclose(frame.state, [1, 2, 3, np.pi, 0, 0, 0.04, -0.04])
    np.testing.assert_array_equal(frame.hand, [1, 2, 3, 0, 1, 0, 0])
    assert list(frame.objects) == ["plate_1", "bowl_1", "box_1"]  # the task's order, then the others
    assert (frame.reward, frame.success) == (0.5, False)


def test_what_a_world_refuses(env):
    with pytest.raises(ValueError, match="tasks 0 to 9, not 10"):
        LiberoWorld("goal", 10)
    for action in (np.zeros(6), np.full(7, np.inf)):
        with pytest.raises(ValueError, match="7 finite numbers"):
            LiberoWorld("goal", 0).step(action)
