"""What is wrong with a dataset, said so that its owner finds the place."""

from __future__ import annotations

from typing import Literal

# What a sample that cannot be used does: stop, or be replaced and counted.
OnBad = Literal["raise", "skip"]


class DatasetError(ValueError):
    """A dataset that cannot be used as it is."""

    def __init__(self, dataset: str, reason: str) -> None:
        super().__init__(f"Dataset {dataset!r}: {reason}")
        self.dataset = dataset
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.dataset, self.reason)


class BadSampleError(DatasetError):
    """One frame, or all frames of an episode (frame None), that cannot be used.

    Where a dataset does not tell its episodes (episode None), the frame is counted over the whole dataset.
    """

    def __init__(self, dataset: str, episode: int | str | None, frame: int | None, reason: str) -> None:
        super().__init__(dataset, f"{_place(episode, frame)}: {reason}")
        self.episode = episode
        self.frame = frame
        self.cause = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.dataset, self.episode, self.frame, self.cause)


def _place(episode: int | str | None, frame: int | None) -> str:
    if episode is None:
        return f"sample {frame}"
    return f"episode {episode}, {'all frames' if frame is None else f'frame {frame}'}"
