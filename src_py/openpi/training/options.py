"""What the training loop can do beyond the published configs; all of it off, or as published, by default."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Options of `openpi train`, on the command line as `--loop.NAME`.

    Attributes:
        grad_accum_steps: the batch is worked off in so many equal parts, whose gradients are averaged.
        decay_matrices_only: weight decay leaves vectors (biases, norms) alone.
        episodes: train on these episodes of the data set only.
        on_bad_data: "raise" at a sample that cannot be used, or "skip" it and count.
        keep_in_memory: make each sample once and keep it, each worker its own: for data that fits in memory.
        val_fraction: share of the episodes held out for validation.
        val_interval: steps between validations.
        val_batches: batches a validation.
        keep_last: newest checkpoints to keep, beside those of keep_period.
        wandb_mode: "online", or "offline" to sync later.
        tensorboard: write TensorBoard events too (needs tensorboardX).
    """

    grad_accum_steps: int = 1
    decay_matrices_only: bool = False
    episodes: tuple[int, ...] | None = None
    on_bad_data: Literal["raise", "skip"] = "raise"
    keep_in_memory: bool = False
    val_fraction: float = 0.0
    val_interval: int = 1000
    val_batches: int = 4
    keep_last: int = 1
    wandb_mode: Literal["online", "offline"] = "online"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("grad_accum_steps", "val_interval", "val_batches", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, it is {getattr(self, name)}.")
        if not 0.0 <= self.val_fraction < 1.0:
            raise ValueError(f"val_fraction must be in [0, 1), it is {self.val_fraction}.")
