"""The LIBERO runner with the real simulator, in the environment of `make setup-libero`."""

import json
import pathlib
import subprocess
import sys

import pytest

from openpi_sim.libero import evaluate
from openpi_sim.libero.suites import SUITES, find_suite

PYTHON = pathlib.Path(__file__).parents[2] / ".venv-libero/bin/python"
needs_libero = pytest.mark.skipif(not PYTHON.exists(), reason="LIBERO is not installed; `make setup-libero` does it")


def test_protocol_is_the_published_one():
    assert {name: suite.max_steps for name, suite in SUITES.items()} == {
        "spatial": 220,
        "object": 280,
        "goal": 300,
        "10": 520,
        "90": 400,
    }
    with pytest.raises(ValueError, match="spatial, object, goal, 10, 90"):
        find_suite("kitchen")


@needs_libero
def test_expert_solves_a_task_and_a_second_run_repeats_nothing(tmp_path, capfd):
    args = evaluate.Args(trials=1, tasks=(0,), out=tmp_path, python=PYTHON)
    assert evaluate.main(args) == 0
    folder = tmp_path / "spatial_seed7_expert"
    first = (folder / "results.jsonl").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["episodes"], summary["successes"], summary["max_steps"]) == (1, 1, 220)
    assert evaluate.main(args) == 0
    assert (folder / "results.jsonl").read_text() == first
    assert "100.0%" in capfd.readouterr().out


@needs_libero
def test_images_and_state_have_the_shape_policies_expect():
    script = """
from openpi_sim.libero.episode import policy_observation
from openpi_sim.libero.world import LiberoWorld
world = LiberoWorld("spatial", 0, resolution=(128, 128))
frame = world.reset(0)
raw = world._env.env._get_observations()["agentview_image"]
assert np.array_equal(frame.images["agentview"], raw[::-1, ::-1]), "turned by 180 degrees"
observation = policy_observation(frame, world.language)
for key in ("observation/image", "observation/wrist_image"):
    assert observation[key].shape == (224, 224, 3), key
    assert observation[key].dtype == np.uint8, key
assert observation["observation/state"].shape == (8,)
try:
    world.step(np.full(7, np.nan))
except ValueError as error:
    assert "finite" in str(error)
else:
    raise AssertionError("a NaN action was executed")
"""
    done = subprocess.run([str(PYTHON), "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": pathlib.Path("/nowhere/python")}, "make setup-libero"),
        ({"suite": "goal"}, "scripted expert knows"),
        ({"tasks": (10,)}, "tasks 0 to 9"),
        ({"server": "robot"}, "HOST:PORT"),
    ],
)
def test_bad_arguments_are_sentences(change, message):
    args = evaluate.Args(**({"python": pathlib.Path(sys.executable)} | change))
    with pytest.raises(ValueError, match=message):
        evaluate.main(args)
