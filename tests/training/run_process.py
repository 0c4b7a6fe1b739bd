"""Runs the tiny config in a process of its own, and dies or fails where it is told to.

Usage: python run_process.py JSON with the fields of `TrainConfig` to change, and
    base: the config of tiny_config.py to start from, TINY by default;
    kill_at_step: SIGKILL after this step has been started;
    kill_in_save: SIGKILL while this save (1 is the first) is being written;
    full_after_step: from this step on no file can grow (the disk is full);
    shard_all: split small parameters over the FSDP axis too;
    stop_after: train so many steps, and resume with another call;
    loop: fields of `LoopOptions` to change.
"""

import dataclasses
import functools
import json
import os
import pathlib
import resource
import signal
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))


def main(settings: dict[str, Any]) -> None:
    from openpi.cli import train as command

    command.join_other_processes()
    import tiny_config

    from openpi.training import checkpoints, sharding, train_loop

    kill_at_step, full_after = settings.pop("kill_at_step", None), settings.pop("full_after_step", None)
    kill_in_save = settings.pop("kill_in_save", None)
    if settings.pop("shard_all", False):
        sharding.fsdp_sharding = functools.partial(sharding.fsdp_sharding, min_size_mbytes=0)
    stop_after = settings.pop("stop_after", None)
    data = tiny_config.aloha(settings.pop("repo_id"))
    base = getattr(tiny_config, settings.pop("base", "TINY"))
    loop = dataclasses.replace(base.loop, **settings.pop("loop", {}))
    config = dataclasses.replace(base, data=data, loop=loop, **settings)

    saves = []
    write = checkpoints._AssetsWriter.__call__

    def die_in_save(self: Any, directory: Any) -> None:
        write(self, directory)
        saves.append(directory)
        if len(saves) == kill_in_save:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._AssetsWriter.__call__ = die_in_save

    def on_step(step: int, info: Any) -> None:
        if step == kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == full_after:
            while not any(path.name.isdigit() for path in config.checkpoint_dir.iterdir()):
                time.sleep(0.01)  # the first checkpoint is still being written
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))

    if stop_after is not None:
        train_loop.train(dataclasses.replace(config, num_train_steps=stop_after))
        config = dataclasses.replace(config, resume=True)
    train_loop.train(config, on_step=on_step)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
