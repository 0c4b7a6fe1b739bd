"""Runs that are killed, that find the disk full, and that are spread over devices and processes: the same losses."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from openpi.training import metrics, options, train_loop

HERE = pathlib.Path(__file__).parent


def start(config: Any, environment: dict[str, str] | None = None, **settings: Any) -> subprocess.Popen:
    fields = {
        "exp_name": config.exp_name,
        "assets_base_dir": config.assets_base_dir,
        "checkpoint_base_dir": config.checkpoint_base_dir,
        "repo_id": config.data.repo_id,
    }
    return subprocess.Popen(
        [sys.executable, str(HERE / "run_process.py"), json.dumps(fields | settings)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | (environment or {}),
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """What the process wrote to stderr."""
    try:
        return process.communicate(timeout=280)[1]
    finally:
        process.kill()


def run(config: Any, environment: dict[str, str] | None = None, *, status: int = 0, **settings: Any) -> str:
    process = start(config, environment, **settings)
    text = finish(process)
    assert process.returncode == status, text[-3000:]
    return text


def losses(config: Any) -> list[float]:
    return [row["loss"] for row in metrics.read_metrics(config.checkpoint_dir) if "loss" in row]


def saved_steps(config: Any) -> list[int]:
    return sorted(int(path.name) for path in config.checkpoint_dir.iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def expected(tiny_below: Any, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run on one device that nothing happens to."""
    config = tiny_below(tmp_path_factory.mktemp("undisturbed"), "undisturbed")
    train_loop.train(config)
    return losses(config)


def test_kill_in_a_save_costs_no_checkpoint_and_changes_no_loss(tiny_run: Any, expected: list[float]) -> None:
    config = tiny_run("killed_in_save")
    run(config, status=-signal.SIGKILL, kill_in_save=2)
    assert saved_steps(config) == [2]
    assert "leaked" not in run(config, resume=True, num_workers=1), "memory that workers share with the run"
    assert losses(config) == expected
    assert saved_steps(config) == [5]


@pytest.mark.long
def test_kill_in_a_step_changes_no_loss(tiny_run: Any, expected: list[float]) -> None:
    config = tiny_run("killed_in_step")
    run(config, status=-signal.SIGKILL, kill_at_step=3)
    assert len(losses(config)) == 3
    run(config, resume=True)
    assert losses(config) == expected


@pytest.mark.long
def test_full_disk_leaves_the_last_checkpoint_whole(tiny_run: Any, expected: list[float]) -> None:
    config = tiny_run("full")
    text = run(config, status=1, full_after_step=3)
    assert "File too large" in text or "EFBIG" in text
    assert saved_steps(config) == [2]
    run(config, resume=True)
    assert losses(config) == expected


FOUR = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}


def test_four_devices_give_the_losses_of_one(tiny_run: Any, expected: list[float]) -> None:
    """Stopped in the middle and resumed on them."""
    config = tiny_run("four")
    run(config, FOUR, fsdp_devices=2, shard_all=True, stop_after=3)
    assert losses(config) == pytest.approx(expected, rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("base", ["TINY", "FAST_LORA"])
def test_accumulation_on_four_devices_gives_the_losses_of_one(tiny: Any, tiny_run: Any, base: str) -> None:
    loop = {"grad_accum_steps": 2, "val_fraction": 0.25, "val_interval": 3, "val_batches": 1}
    changes = {name: getattr(getattr(tiny, base), name) for name in ("model", "freeze_filter", "ema_decay")}
    config = tiny_run("one", batch_size=8, loop=options.LoopOptions(**loop), **changes)
    train_loop.train(config)
    spread = dataclasses.replace(config, exp_name="four")
    run(spread, FOUR, base=base, fsdp_devices=2, shard_all=True, batch_size=8, loop=loop)
    assert losses(spread) == pytest.approx(losses(config), rel=1e-4)
    assert_same_validation(spread, config, steps=[3, 5])


def assert_same_validation(ours: Any, theirs: Any, steps: list[int]) -> None:
    rows = [[row for row in metrics.read_metrics(run.checkpoint_dir) if "val_loss" in row] for run in (ours, theirs)]
    assert [row["step"] for row in rows[0]] == steps
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.long
def test_two_processes_give_the_losses_and_errors_of_one(tiny_run: Any) -> None:
    held_out = {"val_fraction": 0.25, "val_interval": 3, "val_batches": 2}
    config = tiny_run("one", loop=options.LoopOptions(**held_out))
    train_loop.train(config)
    spread = dataclasses.replace(config, exp_name="two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [start(spread, environment | {"JAX_PROCESS_ID": str(rank)}, loop=held_out) for rank in range(2)]
    texts = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(text[-2000:] for text in texts)
    assert losses(spread) == pytest.approx(losses(config), rel=1e-4)
    assert_same_validation(spread, config, steps=[3, 5])
