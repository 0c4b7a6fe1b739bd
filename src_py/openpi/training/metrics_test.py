"""Where numbers go: files, TensorBoard, W&B (both stood in for), and the line of progress."""

import logging
import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest

from openpi.training import metrics


class FakeWandb(types.ModuleType):
    """Remembers what a run was told. `trouble` is raised by what goes online; `logged_in` is what `login` finds."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.logged_in = True
        self.trouble: Exception | None = None
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[dict, int]] = []
        self.finished = 0

    def login(self, timeout: int) -> bool:
        assert timeout <= 60
        return self.logged_in

    def Settings(self, init_timeout: int) -> int:
        return init_timeout

    def teardown(self) -> None:
        """Nothing to stop."""

    def init(self, **kwargs: Any) -> Any:
        if self.trouble is not None and kwargs.get("mode") != "offline":
            raise self.trouble
        self.inits.append(kwargs)
        return types.SimpleNamespace(
            id=kwargs.get("id") or f"run{len(self.inits)}",
            log=lambda values, step: self.logged.append((values, step)),
            finish=lambda: setattr(self, "finished", self.finished + 1),
        )

    def Image(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def sink(folder: pathlib.Path, *, resume: bool, mode: str = "online") -> metrics.WandbSink:
    return metrics.WandbSink(folder, project="p", name="n", config={"a": 1}, mode=mode, resume=resume)


def test_resumed_run_goes_on_in_the_same_wandb_run(tmp_path: pathlib.Path, wandb: FakeWandb) -> None:
    sink(tmp_path, resume=False).close()
    assert (tmp_path / "wandb_id.txt").read_text() == "run1"
    resumed = sink(tmp_path, resume=True)
    assert wandb.inits[1]["id"] == "run1"
    assert wandb.inits[1]["resume"] == "allow"
    resumed.scalars(4, {"loss": 0.5})
    resumed.images(4, "first_batch", np.zeros((2, 3, 3, 3), np.uint8))
    assert wandb.logged == [({"loss": 0.5}, 4), ({"first_batch": [(3, 3, 3), (3, 3, 3)]}, 4)]


def test_new_run_does_not_take_over_an_old_id(tmp_path: pathlib.Path, wandb: FakeWandb) -> None:
    sink(tmp_path, resume=False)
    sink(tmp_path, resume=False, mode="offline")
    assert (tmp_path / "wandb_id.txt").read_text() == "run2"
    assert "id" not in wandb.inits[1]
    assert wandb.inits[1]["mode"] == "offline"


@pytest.mark.parametrize("trouble", [None, RuntimeError("no route to host")])
def test_run_that_cannot_begin_online_is_kept_offline(
    tmp_path: pathlib.Path, wandb: FakeWandb, caplog: pytest.LogCaptureFixture, trouble: Exception | None
) -> None:
    wandb.logged_in, wandb.trouble = trouble is not None, trouble
    run = sink(tmp_path, resume=False)
    run.scalars(0, {"loss": 0.5})
    assert [init["mode"] for init in wandb.inits] == ["offline"]
    assert wandb.logged == [({"loss": 0.5}, 0)]
    assert len(caplog.records) == 1
    assert ("no route to host" if trouble else "nobody is logged in") in caplog.text
    assert "`wandb sync`" in caplog.text


def test_wandb_s_own_setting_decides_without_asking(
    tmp_path: pathlib.Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.logged_in = False
    sink(tmp_path, resume=False)
    assert "mode" not in wandb.inits[0]


def test_wandb_itself_offline(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for resume in (False, True):
        run = sink(tmp_path, resume=resume, mode="offline")
        run.scalars(int(resume), {"loss": 0.25})
        run.images(int(resume), "first_batch", np.zeros((2, 4, 4, 3), np.uint8))
        run.close()
    name = (tmp_path / "wandb_id.txt").read_text()
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))) == 2


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("wandb", lambda folder: sink(folder, resume=False)),
        ("tensorboardX", lambda folder: metrics.TensorBoardSink(folder)),
    ],
)
def test_missing_packages_are_named(
    module: str, make: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {module}"):
        make(tmp_path)


def test_tensorboard_events(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    writer = metrics.TensorBoardSink(tmp_path)
    writer.scalars(1, {"loss": 0.25})
    writer.images(0, "first_batch", np.zeros((2, 4, 4, 3), np.uint8))
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()


def test_means_since_the_last_line() -> None:
    averages = metrics.Averager()
    averages.add({"loss": np.float32(1.0)}, waited_s=0.0)
    averages.add({"loss": np.float32(3.0)}, waited_s=0.0)
    values = averages.take(batch_size=4)
    assert values["loss"] == 2.0
    assert values["samples_per_s"] > 0
    assert values["data_wait_share"] == 0
    averages.add({"loss": np.float32(7.0)}, waited_s=0.0)
    assert averages.take(batch_size=4)["loss"] == 7.0


def test_without_a_terminal_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    line = metrics.ProgressLine(total=10, start=2)
    values = {"loss": 0.5, "grad_norm": 1.0, "samples_per_s": 20.0, "data_wait_share": 0.01}
    with caplog.at_level(logging.INFO):
        line.tick(3)
        line.update(4, values)
    line.close()
    assert "step 4/10  loss 0.5000" in caplog.text
    assert "20.0 samples/s  data wait 1.0%  ETA 0:00:0" in caplog.text
