"""The checkpoints below one folder, local or remote, as they come and go."""

import re
import time
from collections.abc import Iterable, Mapping

from openpi.shared import download

_STEP = re.compile(r"(?:checkpoint-)?(\d+)")
WEIGHTS = ("params", "model.safetensors")
REMEMBER_S = 5.0  # how long a remote listing is taken for true


class UnknownCheckpointError(ValueError):
    """No such checkpoint; the message lists those there are."""


class CheckpointStore:
    """Step folders (`1000`, `checkpoint-1000`) with weights in them, as ids `checkpoint-1000`.

    Any fsspec address does: a path, gs://bucket/path, s3://bucket/path. A folder that is itself a checkpoint counts
    as the only one, under its own name.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._files, self._root = download.file_system(self.address)
        self._is_local = "file" in self._files.protocol
        self._listed: Mapping[str, str] = {}
        self._listed_at = float("-inf")

    def ids(self) -> list[str]:
        """All checkpoints, the latest last.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        return list(self._folders())

    def resolve(self, wanted: str | None) -> str:
        """The id of a checkpoint that was asked for by id, bare number or (None) as the latest.

        Raises:
            UnknownCheckpointError: it is not there.
        """
        ids = self.ids()
        if wanted is None and ids:
            return ids[-1]
        if wanted is not None and as_id(wanted) in ids:
            return as_id(wanted)
        raise self._unknown(wanted, ids)

    def address_of(self, checkpoint_id: str) -> str:
        """Where the checkpoint lies.

        Raises:
            UnknownCheckpointError: it is not there any more.
        """
        folders = self._folders()
        if checkpoint_id not in folders:
            raise self._unknown(checkpoint_id, folders)
        return folders[checkpoint_id]

    def _unknown(self, wanted: str | None, ids: Iterable[str]) -> UnknownCheckpointError:
        there = ", ".join(ids) or "none at all"
        which = f"{wanted!r} " if wanted else ""
        return UnknownCheckpointError(f"There is no checkpoint {which}in {self.address}. Available: {there}.")

    def _folders(self) -> Mapping[str, str]:
        age = time.monotonic() - self._listed_at
        if self._is_local or age > REMEMBER_S:
            self._listed, self._listed_at = self._list(), time.monotonic()
        return self._listed

    def _list(self) -> dict[str, str]:
        self._files.invalidate_cache()
        try:
            names = self._names(self._root)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"There is no folder {self.address} with checkpoints in it.") from error
        if any(weights in names for weights in WEIGHTS):
            return {as_id(self.address.rpartition("/")[2]): self.address}
        found = [name for name in names if _STEP.fullmatch(name) and self._has_weights(name)]
        found.sort(key=_step)
        return {as_id(name): f"{self.address}/{name}" for name in found}

    def _names(self, folder: str) -> list[str]:
        return [entry.rstrip("/").rpartition("/")[2] for entry in self._files.ls(folder, detail=False)]

    def _has_weights(self, name: str) -> bool:
        return any(self._files.exists(f"{self._root}/{name}/{weights}") for weights in WEIGHTS)


def as_id(name: str) -> str:
    """A step folder's name, or a bare number, as an id."""
    return f"checkpoint-{name}" if name.isdigit() else name


def _step(name: str) -> int:
    match = _STEP.fullmatch(name)
    return int(match.group(1)) if match else -1
