import json
import pathlib

import numpy as np
import pytest

from openpi.cli import bench_loader
from openpi.training.datasets import LeRobotWriter


@pytest.fixture
def dataset(tmp_path: pathlib.Path) -> pathlib.Path:
    features = {
        "action": {"dtype": "float32", "shape": (2,)},
        "observation.images.top": {"dtype": "video", "shape": (32, 32, 3)},
    }
    root = tmp_path / "dataset"
    with LeRobotWriter(root, fps=10, features=features) as writer:
        for _ in range(8):
            image = np.zeros((32, 32, 3), np.uint8)
            writer.add_frame({"action": np.zeros(2), "observation.images.top": image}, task="t")
        writer.save_episode()
    return root


def peer(tmp_path: pathlib.Path, answer: str) -> pathlib.Path:
    """A stand-in for a Python with lerobot, which keeps what it was asked."""
    script = tmp_path / "peer"
    script.write_text(f'#!/bin/sh\necho "$3" > {tmp_path}/request.json\n{answer}\n')
    script.chmod(0o755)
    return script


def test_readers_take_turns_on_one_dataset(
    dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = """echo '{"reader": "lerobot 9", "samples_per_s": 0.5}'"""
    args = bench_loader.Args(
        input_path=str(dataset),
        batch_size=2,
        batches=2,
        workers=(0,),
        rounds=2,
        peer_python=peer(tmp_path, answer),
        json=tmp_path / "rates.json",
    )
    assert bench_loader.main(args) == 0
    figures = json.loads((tmp_path / "rates.json").read_text())
    assert figures["samples_per_s"]["openpi"][0] > 0.5
    assert figures["samples_per_s"]["lerobot 9"] == [0.5]
    assert f"{figures['samples_per_s']['openpi'][0] / 0.5:.2f}x" in capsys.readouterr().out
    request = json.loads((tmp_path / "request.json").read_text())
    assert (request["root"], request["fps"], request["chunk"]) == (str(dataset), 10, 50)
    assert (request["batch_size"], request["batches"], request["workers"]) == (2, 2, 0)


def test_failing_peer_is_told(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    python = peer(tmp_path, "echo No module named lerobot >&2; exit 1")
    args = bench_loader.Args(input_path=str(dataset), batch_size=2, batches=1, workers=(0,), peer_python=python)
    with pytest.raises(OSError, match=r"failed in .*peer: No module named lerobot"):
        bench_loader.main(args)
