"""Finite scalar quantisation of action chunks (Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple").

A chunk is projected on its principal components, each squashed and rounded to a few levels, and neighbouring
components share a token. The codec is plain data (fsq.npz) fitted on a user's own chunks; the network behind the
published `droid_fsq_tokenizer` is not part of this package.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib

import numpy as np

logger = logging.getLogger(__name__)

FILE_NAME = "fsq.npz"
# Product 1000: 4 components share a token of a 1000-entry code book.
DEFAULT_LEVELS = (8, 5, 5, 5)


@dataclasses.dataclass(frozen=True)
class FsqCodec:
    """mean [h * d], components [tokens * len(levels), h * d] (orthonormal rows), spread of each component, levels."""

    shape: tuple[int, int]
    mean: np.ndarray
    components: np.ndarray
    spread: np.ndarray
    levels: tuple[int, ...] = DEFAULT_LEVELS

    @classmethod
    def fit(cls, chunks: np.ndarray, num_tokens: int, levels: tuple[int, ...] = DEFAULT_LEVELS) -> FsqCodec:
        """Fit on normalised chunks [n, h, d]. A chunk of h * d values has room for h * d / len(levels) tokens.

        Raises:
            ValueError: too few chunks or too short ones for `num_tokens`.
        """
        count, horizon, dim = chunks.shape
        flat = chunks.reshape(count, -1)
        wanted = num_tokens * len(levels)
        if wanted > min(flat.shape):
            raise ValueError(f"{num_tokens} tokens need {wanted} components; {count} chunks give {min(flat.shape)}.")
        mean = flat.mean(axis=0)
        _, singular, components = np.linalg.svd(flat - mean, full_matrices=False)
        spread = np.maximum(singular[:wanted] / np.sqrt(count), 1e-6)
        return cls((horizon, dim), mean, components[:wanted], spread, levels)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """A chunk [h, d] -> codes [tokens].

        Raises:
            ValueError: the chunk has another shape than those fitted, or holds NaN.
        """
        if actions.shape != self.shape or not np.isfinite(actions).all():
            raise ValueError(f"The codec takes finite chunks of shape {self.shape}; got shape {actions.shape}.")
        values = np.tanh(self.components @ (actions.ravel() - self.mean) / (2 * self.spread))
        steps = self._steps()
        digits = np.rint((values + 1) / 2 * steps).astype(np.int64).reshape(-1, len(self.levels))
        return digits @ self._radix()

    def decode(self, codes: np.ndarray, horizon: int, dim: int) -> np.ndarray:
        """Codes -> chunk [horizon, dim]; zeros and a warning where they are not of the fitted shape."""
        num_tokens = len(self.components) // len(self.levels)
        in_range = ((codes >= 0) & (codes < np.prod(self.levels))).all()
        if len(codes) != num_tokens or not in_range or (horizon, dim) != self.shape:
            logger.warning("%d codes make no chunk of %d x %d; it is zero.", len(codes), horizon, dim)
            return np.zeros((horizon, dim), np.float32)
        digits = codes[:, None] // self._radix() % np.asarray(self.levels)
        steps = self._steps()
        # Half a step inside the open interval, where the inverse of tanh is finite.
        values = np.clip(digits.ravel() / steps * 2 - 1, -1 + 0.5 / steps, 1 - 0.5 / steps)
        flat = self.mean + (np.arctanh(values) * 2 * self.spread) @ self.components
        return flat.reshape(self.shape)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `directory`/fsq.npz."""
        folder = pathlib.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / FILE_NAME, **dataclasses.asdict(self))

    @classmethod
    def load(cls, directory: str | os.PathLike[str] | None) -> FsqCodec:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = None if directory is None else pathlib.Path(directory).expanduser() / FILE_NAME
        if path is None or not path.is_file():
            raise FileNotFoundError(
                f"There is no FSQ action codec in {directory} (a folder with {FILE_NAME}; the published network is "
                "not part of this package). Fit one, openpi.models.fsq.FsqCodec.fit(...).save(folder), and give the "
                "folder as fsq_tokenizer_path."
            )
        with np.load(path) as data:
            shape, levels = (tuple(int(value) for value in data[name]) for name in ("shape", "levels"))
            return cls((shape[0], shape[1]), data["mean"], data["components"], data["spread"], levels)

    def _steps(self) -> np.ndarray:
        return np.tile(np.asarray(self.levels) - 1, len(self.components) // len(self.levels))

    def _radix(self) -> np.ndarray:
        return np.cumprod((1, *self.levels[:-1]))
