"""Where a run's numbers go: always a JSONL file, W&B or TensorBoard where asked, and a live line on the terminal."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
WANDB_ID_FILE = "wandb_id.txt"
_WANDB_TIMEOUT_S = 30


class Sink(Protocol):
    """Takes scalars and images of a step."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def images(self, step: int, name: str, images: np.ndarray) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """One JSON object a line in `<directory>/metrics.jsonl`. Lines from `start_step` on, left by a run that was killed
    after its last checkpoint, are dropped: the resumed run writes them again."""

    def __init__(self, directory: pathlib.Path, start_step: int = 0) -> None:
        self.path = directory / METRICS_FILE
        kept = [row for row in read_metrics(directory) if row["step"] < start_step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(temporary, self.path)
        self._file = self.path.open("a", buffering=1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def images(self, step: int, name: str, images: np.ndarray) -> None:
        """Images have their own files."""

    def close(self) -> None:
        self._file.close()


def read_metrics(directory: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, whole lines only; none where there is no file."""
    path = directory / METRICS_FILE
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def require_tensorboard() -> ModuleType:
    """tensorboardX.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import tensorboardX
    except ImportError as error:
        raise ImportError("--loop.tensorboard needs tensorboardX: pip install tensorboardX.") from error
    return tensorboardX


class TensorBoardSink:
    """TensorBoard events in `<directory>/tensorboard`.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, directory: pathlib.Path, start_step: int = 0) -> None:
        writer = require_tensorboard().SummaryWriter
        self._writer = writer(str(directory / "tensorboard"), purge_step=start_step or None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def images(self, step: int, name: str, images: np.ndarray) -> None:
        self._writer.add_images(name, images, step, dataformats="NHWC")

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """A W&B run. Its id is kept in `<directory>/wandb_id.txt`, so that a resumed run goes on in the same one.

    Args:
        mode: "online" leaves it to W&B's own settings (WANDB_MODE, `wandb offline`), which are online by default; a run
            that cannot begin online, as nobody is logged in or the network is down, is kept offline. "offline" keeps
            it in any case.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(
        self, directory: pathlib.Path, *, project: str, name: str, config: Any, mode: str, resume: bool
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("W&B is not installed: pip install wandb, or give --no-wandb-enabled.") from error
        self._wandb = wandb
        id_file = directory / WANDB_ID_FILE
        common = {"project": project, "name": name, "config": config, "dir": str(directory)}
        if resume and id_file.is_file():
            common |= {"id": id_file.read_text().strip(), "resume": "allow"}
        self._run = _wandb_run(wandb, mode, common)
        id_file.write_text(self._run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def images(self, step: int, name: str, images: np.ndarray) -> None:
        self._run.log({name: [self._wandb.Image(image) for image in images]}, step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_run(wandb: Any, mode: str, common: Mapping[str, Any]) -> Any:
    if mode == "online":
        try:
            # `init` alone would wait at a terminal, without limit, for somebody to log in.
            if "WANDB_MODE" in os.environ or wandb.login(timeout=_WANDB_TIMEOUT_S):
                return wandb.init(settings=wandb.Settings(init_timeout=_WANDB_TIMEOUT_S), **common)
            reason = "nobody is logged in"
        except Exception as error:  # wandb's errors have little in common
            reason = str(error)
        logger.warning("W&B cannot begin online (%s). The run is kept offline; `wandb sync` sends it later.", reason)
        wandb.teardown()  # it would hold on to the run's id
    return wandb.init(mode="offline", **common)


class Averager:
    """Means of the steps' numbers since the last log line. Arrays stay on the device until `take`."""

    def __init__(self) -> None:
        self._infos: list[Mapping[str, Any]] = []
        self._waited_s = 0.0
        self._began = time.monotonic()

    def add(self, info: Mapping[str, Any], waited_s: float) -> None:
        """One step's numbers, and how long it waited for its batch."""
        self._infos.append(info)
        self._waited_s += waited_s

    def take(self, batch_size: int) -> dict[str, float]:
        """The means, with `samples_per_s` and `data_wait_share` (part of the time spent waiting for data)."""
        means = {key: float(np.mean([np.asarray(info[key]) for info in self._infos])) for key in self._infos[0]}
        elapsed = max(time.monotonic() - self._began, 1e-9)
        means["samples_per_s"] = len(self._infos) * batch_size / elapsed
        means["data_wait_share"] = self._waited_s / elapsed
        self.__init__()  # type: ignore[misc]
        return means


class ProgressLine:
    """A live line on a terminal: step, loss, samples/s, time left. Elsewhere each update is a log line."""

    def __init__(self, total: int, start: int) -> None:
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._progress = Progress(*columns)
            self._task = self._progress.add_task("compiling", total=total, completed=start)
            self._progress.start()
        self._total = total
        self._start, self._began = start, time.monotonic()

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """`step` steps are done; values has loss, samples_per_s and data_wait_share."""
        text = (
            f"loss {values['loss']:.4f}  grad {values['grad_norm']:.3g}  {values['samples_per_s']:.1f} samples/s  "
            f"data wait {values['data_wait_share']:.1%}"
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=text)
        else:
            logger.info("step %d/%d  %s  ETA %s", step, self._total, text, self._time_left(step))

    def tick(self, step: int) -> None:
        """One more step is done, without new numbers."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _time_left(self, step: int) -> str:
        done = max(step - self._start, 1)
        seconds = int((time.monotonic() - self._began) / done * (self._total - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
