"""What is wrong with a dataset, said so that its owner finds the place."""

from __future__ import annotations


class DatasetError(ValueError):
    """A dataset that cannot be used as it is."""

    def __init__(self, dataset: str, reason: str) -> None:
        super().__init__(f"Dataset {dataset!r}: {reason}")
        self.dataset = dataset
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.dataset, self.reason)


class BadSampleError(DatasetError):
    """One frame, or a whole episode (frame None), that cannot be used."""

    def __init__(self, dataset: str, episode: int, frame: int | None, reason: str) -> None:
        where = f"episode {episode}" if frame is None else f"episode {episode}, frame {frame}"
        super().__init__(dataset, f"{where}: {reason}")
        self.episode = episode
        self.frame = frame
        self.cause = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.dataset, self.episode, self.frame, self.cause)
