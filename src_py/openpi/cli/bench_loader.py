"""Measure how many frames per second a dataset's loader decodes, with the lerobot reader beside it where installed."""

import dataclasses
import functools
import itertools
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from openpi.training import batching
from openpi.training.datasets import LeRobotDataset, LeRobotWriter


@dataclasses.dataclass(frozen=True)
class Args:
    """`openpi bench loader`: random access to single frames with a chunk of 50 actions, all cameras decoded.

    Attributes:
        input_path: folder of a LeRobot dataset; by default one is made: 4 episodes of 150 frames, 2 cameras 480x640.
        batch_size: samples a batch.
        batches: batches a measurement, after one batch that is not counted.
        workers: numbers of worker processes to measure; 0 is a background thread.
        json: write the results to this file too.
    """

    input_path: str | None = None
    batch_size: int = 16
    batches: int = 8
    workers: tuple[int, ...] = (0, 1, 2)
    json: pathlib.Path | None = None


def main(args: Args) -> int:
    """Run `openpi bench loader`."""
    with tempfile.TemporaryDirectory() as scratch:
        root = args.input_path or str(make_dataset(pathlib.Path(scratch) / "bench"))
        cameras = len(LeRobotDataset(root).meta.video_keys)
        rates = {f"openpi, {n} workers": measure(args, functools.partial(_ours, args, root, n)) for n in args.workers}
        rates |= _lerobot_rates(args, root)
    console = Console()
    table = Table("reader", "samples/s", "images/s")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{rate * cameras:.0f}")
    console.print(table)
    if args.json is not None:
        args.json.write_text(json.dumps({"samples_per_s": rates, "cameras": cameras}, indent=2))
    return 0


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


def measure(args: Args, batches: Callable[[], Iterable[Any]]) -> float:
    """Samples per second after the first batch."""
    stream = iter(batches())
    next(stream)
    began = time.perf_counter()
    count = sum(1 for _ in itertools.islice(stream, args.batches))
    return count * args.batch_size / (time.perf_counter() - began)


def _chunk(fps: float) -> dict[str, list[float]]:
    return {"action": [step / fps for step in range(50)]}


def _ours(args: Args, root: str, workers: int) -> Iterable[Any]:
    dataset = LeRobotDataset(root, delta_timestamps=_chunk(LeRobotDataset(root).meta.fps))
    plan = batching.BatchPlan(len(dataset), args.batch_size, shuffle=True)
    return batching.batches(dataset, plan, num_workers=workers)


def _lerobot_rates(args: Args, root: str) -> dict[str, float]:
    try:
        import torch
        from lerobot.datasets.lerobot_dataset import LeRobotDataset as Theirs
    except ImportError:
        return {}
    fps = LeRobotDataset(root).meta.fps

    def loader(workers: int) -> Iterable[Any]:
        dataset = Theirs("local/bench", root=root, delta_timestamps=_chunk(fps))
        return torch.utils.data.DataLoader(
            dataset, batch_size=args.batch_size, shuffle=True, num_workers=workers, drop_last=True
        )

    return {f"lerobot, {n} workers": measure(args, functools.partial(loader, n)) for n in args.workers}
