"""Learning-rate schedules and optimizers as data: a config names one, `create` builds the optax object."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import optax

# A pytree of booleans like the parameters', or a function from the parameters to one; True = decayed.
WeightDecayMask = Any | Callable[[Any], Any] | None


@runtime_checkable
class LRScheduleConfig(Protocol):
    """A learning rate as a function of the step."""

    def create(self) -> optax.Schedule: ...


@dataclasses.dataclass(frozen=True)
class CosineDecaySchedule(LRScheduleConfig):
    """Linear warm-up to `peak_lr`, then half a cosine down to `decay_lr`, reached at step `decay_steps`.

    The warm-up starts at peak_lr / (warmup_steps + 1), so that the first step learns too.
    """

    warmup_steps: int = 1_000
    peak_lr: float = 2.5e-5
    decay_steps: int = 30_000
    decay_lr: float = 2.5e-6

    def create(self) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(
            init_value=_first_lr(self.peak_lr, self.warmup_steps),
            peak_value=self.peak_lr,
            warmup_steps=self.warmup_steps,
            decay_steps=self.decay_steps,
            end_value=self.decay_lr,
        )


@dataclasses.dataclass(frozen=True)
class RsqrtDecaySchedule(LRScheduleConfig):
    """Linear warm-up to `peak_lr`, then peak_lr / sqrt(1 + n / timescale), n steps after the warm-up."""

    warmup_steps: int = 1_000
    peak_lr: float = 5e-5
    timescale: float = 10_000

    def create(self) -> optax.Schedule:
        warmup = optax.linear_schedule(_first_lr(self.peak_lr, self.warmup_steps), self.peak_lr, self.warmup_steps)

        def decay(step: Any) -> Any:
            return self.peak_lr / jnp.sqrt(1.0 + step / self.timescale)

        return optax.join_schedules([warmup, decay], [self.warmup_steps])


@runtime_checkable
class OptimizerConfig(Protocol):
    """An optimizer without its learning rate."""

    def create(
        self, lr: optax.ScalarOrSchedule, weight_decay_mask: WeightDecayMask = None
    ) -> optax.GradientTransformation: ...


@dataclasses.dataclass(frozen=True)
class AdamW(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2019) behind a clip of the gradients' global norm."""

    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-10
    clip_gradient_norm: float = 1.0

    def create(
        self, lr: optax.ScalarOrSchedule, weight_decay_mask: WeightDecayMask = None
    ) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.clip_gradient_norm),
            optax.adamw(
                lr, b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay, mask=weight_decay_mask
            ),
        )


@dataclasses.dataclass(frozen=True)
class SGD(OptimizerConfig):
    """Gradient descent with momentum, no clipping and no weight decay.

    `lr` is what a config may note down; the rate in use is the one given to `create`, from the config's schedule.
    """

    lr: float = 5e-5
    momentum: float = 0.9
    nesterov: bool = False

    def create(
        self, lr: optax.ScalarOrSchedule, weight_decay_mask: WeightDecayMask = None
    ) -> optax.GradientTransformation:
        if weight_decay_mask is not None:
            raise ValueError("SGD has no weight decay, so it takes no weight_decay_mask; use AdamW or leave it out.")
        return optax.sgd(lr, momentum=self.momentum, nesterov=self.nesterov)


def create_optimizer(
    optimizer: OptimizerConfig, lr_schedule: LRScheduleConfig, weight_decay_mask: WeightDecayMask = None
) -> optax.GradientTransformation:
    """The optimizer running on the schedule."""
    return optimizer.create(lr_schedule.create(), weight_decay_mask=weight_decay_mask)


def _first_lr(peak_lr: float, warmup_steps: int) -> float:
    return peak_lr / (warmup_steps + 1)
