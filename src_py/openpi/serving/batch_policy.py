"""A `Policy` that computes several observations in one run of the model."""

from collections.abc import Sequence
from typing import Any

from openpi_client import base_policy


class BatchPolicy(base_policy.BasePolicy):
    """Wraps a policy whose `infer` also takes a list, as `openpi.policies.policy.Policy` does.

    A compiled model knows fixed batch sizes, so a batch is filled up to the next one in `sizes` with copies of its
    last observation; only what `warm_up` has compiled is ever run.
    """

    def __init__(self, policy: Any, sizes: Sequence[int] = (1, 2, 4, 8, 16)) -> None:
        self._policy, self._sizes = policy, sorted({1, *sizes})

    @property
    def metadata(self) -> dict[str, Any]:
        """The policy's own."""
        return getattr(self._policy, "metadata", {})

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        return self._policy.infer(obs)

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results in the order of the observations; at most the largest of `sizes` at a time."""
        results: list[dict[str, Any]] = []
        for start in range(0, len(observations), self._sizes[-1]):
            part = observations[start : start + self._sizes[-1]]
            size = next(size for size in self._sizes if size >= len(part))
            results += self._policy.infer(part + part[-1:] * (size - len(part)))[: len(part)]
        return results

    def warm_up(self, example: dict[str, Any]) -> None:
        """Compile every batch size."""
        self._policy.infer(example)
        for size in self._sizes[1:]:
            self._policy.infer([example] * size)

    def reset(self) -> None:
        self._policy.reset()
