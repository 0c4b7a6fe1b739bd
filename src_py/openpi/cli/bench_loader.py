"""Measure how many frames per second a dataset's loader decodes, beside lerobot's own reader where it is given."""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import tempfile
from collections import defaultdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from openpi.training import batching
from openpi.training.datasets import LeRobotDataset, LeRobotWriter, lerobot_peer

OURS = "openpi"
_CHUNK = 50


@dataclasses.dataclass(frozen=True)
class Args:
    """`openpi bench loader`: random access to single frames with a chunk of 50 actions, all cameras decoded.

    Attributes:
        input_path: folder of a LeRobot dataset; by default one is made: 4 episodes of 150 frames, 2 cameras 480x640.
        batch_size: samples a batch.
        batches: batches a measurement, after one batch that is not counted.
        workers: numbers of worker processes to measure; 0 loads in the process itself (ours: on a thread of it).
        rounds: the readers take turns so often; the median counts.
        peer_python: a Python with `lerobot` installed, whose reader is measured too.
        json: write the results to this file too.
    """

    input_path: str | None = None
    batch_size: int = 16
    batches: int = 16
    workers: tuple[int, ...] = (0, 1, 2)
    rounds: int = 3
    peer_python: pathlib.Path | None = None
    json: pathlib.Path | None = None


def main(args: Args) -> int:
    """Run `openpi bench loader`."""
    with tempfile.TemporaryDirectory() as scratch:
        root = args.input_path or str(make_dataset(pathlib.Path(scratch) / "bench"))
        cameras = len(LeRobotDataset(root).meta.video_keys)
        rates = measure(args, root)
    Console().print(_table(args, rates, cameras))
    if args.json is not None:
        args.json.write_text(
            json.dumps({"workers": args.workers, "samples_per_s": rates, "cameras": cameras}, indent=2)
        )
    return 0


def measure(args: Args, root: str) -> dict[str, list[float]]:
    """Reader -> samples/s for each of `args.workers`, the median of the rounds."""
    turns: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for workers in args.workers * args.rounds:
        turns[OURS][workers].append(_ours(args, root, workers))
        if args.peer_python is not None:
            reader, rate = _theirs(args, root, workers)
            turns[reader][workers].append(rate)
    return {reader: [statistics.median(rates[n]) for n in args.workers] for reader, rates in turns.items()}


def _table(args: Args, rates: dict[str, list[float]], cameras: int) -> Table:
    table = Table("reader", "workers", "samples/s", "images/s", "openpi is faster by")
    for reader, row in rates.items():
        for workers, rate, ours in zip(args.workers, row, rates[OURS], strict=True):
            factor = "" if reader == OURS else f"{ours / rate:.2f}x"
            table.add_row(reader, str(workers), f"{rate:.0f}", f"{rate * cameras:.0f}", factor)
    return table


def make_dataset(root: pathlib.Path) -> pathlib.Path:
    """Four episodes of 150 frames with two cameras whose picture moves."""
    image = {"dtype": "video", "shape": (480, 640, 3), "names": ["height", "width", "channels"]}
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": (14,)},
        "action": {"dtype": "float32", "shape": (14,)},
        "observation.images.top": image,
        "observation.images.wrist": image,
    }
    rng = np.random.default_rng(0)
    scene = np.repeat(np.repeat(rng.integers(0, 255, (60, 80, 3), np.uint8), 8, axis=0), 8, axis=1)
    with LeRobotWriter(root, fps=50, features=features) as writer:
        for _ in range(4):
            for step in range(150):
                view = np.roll(scene, step, axis=1)
                values = rng.uniform(-1, 1, 14)
                writer.add_frame(
                    {
                        "observation.state": values,
                        "action": values,
                        "observation.images.top": view,
                        "observation.images.wrist": view[:, ::-1],
                    },
                    task="bench",
                )
            writer.save_episode()
    return root


def _ours(args: Args, root: str, workers: int) -> float:
    fps = LeRobotDataset(root).meta.fps
    dataset = LeRobotDataset(root, delta_timestamps={"action": [step / fps for step in range(_CHUNK)]})
    plan = batching.BatchPlan(len(dataset), args.batch_size, shuffle=True)
    with batching.closing(batching.batches(dataset, plan, num_workers=workers)) as stream:
        return lerobot_peer.samples_per_s(stream, args.batch_size, args.batches)


def _theirs(args: Args, root: str, workers: int) -> tuple[str, float]:
    # A process for each measurement: workers forked from one that has decoded already would share its open files.
    request = {
        "root": root,
        "fps": LeRobotDataset(root).meta.fps,
        "chunk": _CHUNK,
        "batch_size": args.batch_size,
        "batches": args.batches,
        "workers": workers,
    }
    command = [str(args.peer_python), "-I", lerobot_peer.__file__, json.dumps(request)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise OSError(f"lerobot's reader failed in {args.peer_python}: {process.stderr.strip()[-2000:]}")
    answer = json.loads(process.stdout.splitlines()[-1])
    return answer["reader"], answer["samples_per_s"]
