"""`openpi eval bag` on a bag in which the numbers are known."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from recorded_drivers import write_bag

from openpi_client.base_policy import BasePolicy
from openpi_ros import eval_bag
from openpi_runtime.robots import load_robot

DROID = load_robot("droid")


class Told(BasePolicy):
    """Answers what it was told to, and keeps what it was asked."""

    def __init__(self, answers: list[np.ndarray]) -> None:
        self.answers, self.asked = answers, list[dict[str, Any]]()

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(obs)
        return {"actions": self.answers[(len(self.asked) - 1) % len(self.answers)]}


@pytest.fixture
def args(tmp_path) -> eval_bag.Args:
    write_bag(DROID, tmp_path / "bag")
    return eval_bag.Args(bags=(tmp_path / "bag",), robot="droid", out=tmp_path / "out")


def test_a_policy_that_does_what_was_done_has_no_error(args):
    recorded = eval_bag.compare(Told([np.zeros((10, 8))]), args.bags[0], DROID, args).recorded
    chunks = [recorded[step : step + 10] for step in range(0, len(recorded), 8)]
    policy = Told([np.resize(chunk, (10, 8)) for chunk in chunks])
    comparison = eval_bag.compare(policy, args.bags[0], DROID, args)
    assert np.concatenate(list(comparison.errors())).max() == pytest.approx(0.0)
    assert set(policy.asked[0]) >= {"observation/joint_position", "observation/exterior_image_1_left", "prompt"}


def test_the_report_names_each_action(args, monkeypatch, capsys):
    monkeypatch.setattr(eval_bag, "_policy", lambda _: Told([np.full((15, 8), 0.6)]))
    assert eval_bag.main(args) == 0
    figures = json.loads((args.out / "report.json").read_text())
    assert list(figures["columns"]) == list(DROID.action_names)
    assert figures["columns"]["gripper_position"]["mean"] == pytest.approx(0.0, abs=1e-6)  # it was 0.6 closed
    assert figures["columns"]["joint_velocity_1"]["mean"] == pytest.approx(0.6, abs=0.05)  # and hardly moved
    assert len(figures["by_step"]) == 15
    assert (args.out / "report.html").read_text().count("data:image/png") == 1
    assert "joint_velocity_7" in capsys.readouterr().out


def test_no_bag_and_no_server_are_sentences(args, monkeypatch):
    with pytest.raises(ValueError, match="Name the bags"):
        eval_bag.main(dataclasses.replace(args, bags=()))
    monkeypatch.setattr(eval_bag, "_CONNECT_S", 0.2)
    with pytest.raises(ConnectionError, match=r"No policy server at ws://127\.0\.0\.1:1 within"):
        eval_bag.main(dataclasses.replace(args, port=1))


def test_a_policy_of_another_robot_is_a_sentence(args):
    with pytest.raises(ValueError, match="answers 10 x 14 values; robot droid has 8 actions"):
        eval_bag.compare(Told([np.zeros((10, 14))]), args.bags[0], DROID, args)
