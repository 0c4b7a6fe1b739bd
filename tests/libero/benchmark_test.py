"""The LIBERO runner with the real simulator, in the environment of `make setup-libero`."""

import json
import subprocess

import av
import numpy as np
import pytest

from openpi.serving.background import running
from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_runtime.kinematics import Kinematics
from openpi_runtime.robots import load_robot
from openpi_sim.libero import evaluate
from openpi_sim.libero.interpreter import libero_python


def test_expert_solves_a_task_and_a_second_run_repeats_nothing(tmp_path, capfd):
    args = evaluate.Args(trials=1, tasks=(0,), out=tmp_path)
    assert evaluate.main(args) == 0
    folder = tmp_path / "spatial_seed7_expert"
    first = (folder / "results.jsonl").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["episodes"], summary["successes"], summary["max_steps"]) == (1, 1, 220)
    assert evaluate.main(args) == 0
    assert (folder / "results.jsonl").read_text() == first
    assert "100.0%" in capfd.readouterr().out


class Still:
    """A policy that does nothing, and keeps what it was asked."""

    def __init__(self):
        self.requests = []

    def infer(self, observation):
        self.requests.append(observation)
        return {"actions": np.tile([0.0] * 6 + [-1.0], (10, 1))}


@pytest.mark.timeout(900)  # 220 steps with two cameras
def test_a_policy_server_is_asked_every_five_steps_and_its_failure_is_filmed(tmp_path):
    policy = Still()
    with running(WebsocketPolicyServer(policy, host="127.0.0.1", port=0)) as server:
        args = evaluate.Args(trials=1, tasks=(2,), server=f"127.0.0.1:{server.port}", out=tmp_path)
        assert evaluate.main(args) == 0
    (result,) = map(json.loads, (tmp_path / "spatial_seed7_server/results.jsonl").read_text().splitlines())
    assert (result["success"], result["steps"]) == (False, 220)
    assert len(policy.requests) == 220 / 5
    assert policy.requests[0]["observation/image"].shape == (224, 224, 3)
    assert "black bowl from table center" in policy.requests[0]["prompt"]
    with av.open(result["video"]) as video:
        assert video.streams.video[0].frames == 220


SCENE = """
import json
import numpy as np
from openpi_sim.libero.world import LiberoWorld

def pose(name):
    body = sim.model.body_name2id(name)
    return {"position": list(sim.data.body_xpos[body]), "rotation": list(sim.data.body_xmat[body])}

world = LiberoWorld("spatial", 0, resolution=(128, 160))
frame = world.reset(0)
raw = world._env.env._get_observations()
assert np.array_equal(frame.images["agentview"], raw["agentview_image"][::-1, ::-1]), "turned by 180 degrees"
assert np.array_equal(frame.images["eye_in_hand"], raw["robot0_eye_in_hand_image"][::-1, ::-1])
assert frame.images["agentview"].shape == (128, 160, 3)
assert list(frame.objects)[:2] == ["akita_black_bowl_1", "plate_1"], frame.objects
assert np.allclose(frame.hand[:3], frame.state[:3])
assert abs(frame.state[2] - 1.17) < 0.02 and abs(abs(frame.state[3]) - np.pi) < 0.02, frame.state
for direction in np.random.default_rng(0).uniform(-1, 1, (3, 6)):
    frame = world.step(np.append(direction, -1.0))
sim = world._env.sim
links = {number: pose(f"robot0_link{number}") for number in range(8)}
print(json.dumps({"joints": {name: at for name, (at, _) in frame.joints.items()}, "links": links}))
"""


def test_images_are_turned_a_frame_has_what_the_task_is_about_and_the_arm_is_the_urdfs():
    done = subprocess.run([str(libero_python()), "-c", SCENE], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    scene = json.loads(done.stdout.splitlines()[-1])
    links = {int(number): homogeneous(pose) for number, pose in scene["links"].items()}
    kinematics = Kinematics.from_file(load_robot("libero").urdf_path)
    angles = {f"panda_joint{number}": scene["joints"][f"robot0_joint{number}"] for number in range(1, 8)}
    for number in range(1, 8):
        here = np.linalg.inv(links[0]) @ links[number]
        np.testing.assert_allclose(here, kinematics.forward(angles, f"panda_link{number}"), atol=1e-6)


def homogeneous(pose):
    matrix = np.eye(4)
    matrix[:3, 3], matrix[:3, :3] = pose["position"], np.reshape(pose["rotation"], (3, 3))
    return matrix
