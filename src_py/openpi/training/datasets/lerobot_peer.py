"""Measures the `lerobot` package's own reader, for `openpi bench loader`.

Runs in a Python that has lerobot, by its path and with nothing of ours importable:
    python -I lerobot_peer.py '{"root": "...", "fps": 50, "chunk": 50, "batch_size": 16, "batches": 16, "workers": 0}'
prints {"reader": name and versions, "samples_per_s": rate}.
"""

import importlib.metadata
import itertools
import json
import sys
import time
from collections.abc import Iterable
from typing import Any


def samples_per_s(stream: Iterable[Any], batch_size: int, batches: int) -> float:
    """How fast `batches` batches come, after a first one that starts the workers."""
    iterator = iter(stream)
    next(iterator)
    began = time.perf_counter()
    count = sum(1 for _ in itertools.islice(iterator, batches))
    return count * batch_size / (time.perf_counter() - began)


def main(request: dict[str, Any]) -> dict[str, Any]:
    """The rate of lerobot's reader behind torch's loader, images as uint8 like ours."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    deltas = {"action": [step / request["fps"] for step in range(request["chunk"])]}
    dataset = LeRobotDataset("local/bench", root=request["root"], delta_timestamps=deltas, return_uint8=True)
    size = request["batch_size"]
    loader = torch.utils.data.DataLoader(dataset, size, shuffle=True, num_workers=request["workers"], drop_last=True)
    return {"reader": _versions(), "samples_per_s": samples_per_s(loader, size, request["batches"])}


def _versions() -> str:
    from lerobot.utils.import_utils import get_safe_default_video_backend

    backend = get_safe_default_video_backend()
    package = {"pyav": "av"}.get(backend, backend)
    return f"lerobot {importlib.metadata.version('lerobot')}, {backend} {importlib.metadata.version(package)}"


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
