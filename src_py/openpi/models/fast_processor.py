"""FAST: action chunks as short token sequences (Pertsch et al. 2025, "FAST: Efficient Action Tokenization for VLAs").

A chunk goes through the discrete cosine transform along time, is scaled and rounded, written as a string with one
character per coefficient, and compressed by byte-pair encoding.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.fft
import tokenizers

logger = logging.getLogger(__name__)

DEFAULT_SCALE = 10
DEFAULT_VOCAB_SIZE = 1024
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "processor_config.json"
# Code points from here to 0xDFFF are surrogates, which no string may hold.
_MAX_CODE = 0xD7FF


class FastActionProcessor:
    """Encodes action chunks to tokens and back.

    bpe: byte-level BPE over the characters chr(coefficient - min_token).
    scale: coefficients are multiplied by it before rounding; larger keeps more detail in more tokens.
    time_horizon, action_dim: shape that `decode` assumes; None: that of its arguments or of the last chunk encoded.
    """

    def __init__(
        self,
        bpe: tokenizers.Tokenizer,
        *,
        scale: float = DEFAULT_SCALE,
        vocab_size: int = DEFAULT_VOCAB_SIZE,
        min_token: int = 0,
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ) -> None:
        self.bpe = bpe
        self.scale = scale
        self.vocab_size = vocab_size
        self.min_token = min_token
        self.time_horizon = time_horizon
        self.action_dim = action_dim
        self._last_shape: tuple[int, int] | None = None
        self._pieces = frozenset(bpe.get_vocab())
        self._written: dict[int, int] = {}

    def __call__(self, actions: np.ndarray) -> list[list[int]]:
        """Action chunks [b, h, d] (or one, [h, d]), quantile-normalised to about -1..1, -> b token lists.

        Coefficients outside the range that the BPE was fitted on are clipped to the nearest that it can write.

        Raises:
            ValueError: wrong rank, or NaN or infinity in the actions.
        """
        chunks = np.asarray(actions)
        if chunks.ndim not in (2, 3) or chunks.size == 0:
            raise ValueError(f"Action chunks must be [batch, horizon, dim] or [horizon, dim]; got {chunks.shape}.")
        if not np.isfinite(chunks).all():
            raise ValueError("The actions hold NaN or infinity and cannot be tokenized; leave that sample out.")
        chunks = chunks[None] if chunks.ndim == 2 else chunks
        self._last_shape = (chunks.shape[1], chunks.shape[2])
        return [self._encode(coefficients) for coefficients in _coefficients(chunks, self.scale)]

    def decode(
        self,
        tokens: Iterable[Sequence[int]],
        *,
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ) -> np.ndarray:
        """Token lists -> chunks [b, h, d] float64. Tokens that make no chunk of that shape give zeros and a warning.

        Raises:
            ValueError: the shape is not known from the arguments, the settings or an earlier chunk.
        """
        horizon, dim = self._shape(time_horizon, action_dim)
        coefficients = np.stack([self._decode(ids, horizon, dim) for ids in tokens])
        return scipy.fft.idct(coefficients / self.scale, axis=1, norm="ortho")

    @classmethod
    def fit(
        cls,
        chunks: Iterable[np.ndarray],
        *,
        scale: float = DEFAULT_SCALE,
        vocab_size: int = DEFAULT_VOCAB_SIZE,
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ) -> FastActionProcessor:
        """Fit the BPE on normalised chunks [h, d] (their lengths may differ).

        Raises:
            ValueError: there are none, or `vocab_size` cannot hold one token for each value of a coefficient.
        """
        rounded = [_coefficients(np.asarray(chunk)[None], scale)[0].ravel() for chunk in chunks]
        if not rounded:
            raise ValueError("There are no action chunks to fit the tokenizer on.")
        low = int(min(values.min() for values in rounded))
        span = int(max(values.max() for values in rounded)) - low
        if span > vocab_size:
            raise ValueError(
                f"The coefficients span {span} values and vocab_size is {vocab_size}; raise vocab_size, lower scale "
                f"({scale}), or normalise the actions to -1..1."
            )
        texts = [_text(values - low) for values in rounded]
        bpe = _train_bpe(texts, alphabet=[chr(code) for code in range(span + 1)], vocab_size=vocab_size)
        return cls(
            bpe, scale=scale, vocab_size=vocab_size, min_token=low, time_horizon=time_horizon, action_dim=action_dim
        )

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write a folder in the Hugging Face layout, as `load` reads it."""
        folder = pathlib.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.bpe.save(str(folder / TOKENIZER_FILE))
        settings = {
            "scale": self.scale,
            "vocab_size": self.vocab_size,
            "min_token": self.min_token,
            "time_horizon": self.time_horizon,
            "action_dim": self.action_dim,
        }
        tokenizer_config = {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
        files = {SETTINGS_FILE: settings, "tokenizer_config.json": tokenizer_config, "special_tokens_map.json": {}}
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> FastActionProcessor:
        """Read a folder with tokenizer.json and processor_config.json.

        Raises:
            FileNotFoundError: one of them is missing.
            ValueError: one of them is malformed.
        """
        folder = pathlib.Path(directory)
        for name in (TOKENIZER_FILE, SETTINGS_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}; a FAST tokenizer's folder needs it.")
        try:
            settings = json.loads((folder / SETTINGS_FILE).read_text())
            return cls(tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_FILE)), **_settings(settings))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ValueError(f"The FAST tokenizer in {folder} cannot be read: {error!r}") from error

    def _encode(self, coefficients: np.ndarray) -> list[int]:
        codes = np.clip(coefficients.ravel() - self.min_token, 0, _MAX_CODE).astype(int)
        values, positions = np.unique(codes, return_inverse=True)
        writable = np.array([self._writable(int(value)) for value in values])
        return self.bpe.encode(_text(writable[positions])).ids

    def _writable(self, code: int) -> int:
        """The nearest code that the BPE has pieces for: it would drop any other and shift all that follow."""
        if code not in self._written:
            nearby = (code + sign * step for step in range(_MAX_CODE) for sign in (-1, 1))
            self._written[code] = next((c for c in nearby if 0 <= c <= _MAX_CODE and self._has_pieces(c)), code)
        return self._written[code]

    def _has_pieces(self, code: int) -> bool:
        return all(char in self._pieces for char in _byte_characters(chr(code)))

    def _decode(self, tokens: Sequence[int], horizon: int, dim: int) -> np.ndarray:
        try:
            text = self.bpe.decode([int(token) for token in tokens], skip_special_tokens=False)
            codes = np.array([ord(char) for char in text], np.float64)
            if len(codes) != horizon * dim:
                raise ValueError(f"{len(codes)} coefficients instead of {horizon} x {dim}")
            return codes.reshape(horizon, dim) + self.min_token
        except Exception as error:  # whatever a model may produce, the robot gets a chunk (tokenizers: OverflowError)
            logger.warning("Tokens that make no action chunk are decoded to zeros: %s.", error)
            return np.zeros((horizon, dim))

    def _shape(self, time_horizon: int | None, action_dim: int | None) -> tuple[int, int]:
        last_horizon, last_dim = self._last_shape or (None, None)
        horizon = time_horizon or self.time_horizon or last_horizon
        dim = action_dim or self.action_dim or last_dim
        if horizon is None or dim is None:
            raise ValueError("decode needs time_horizon and action_dim: neither the settings nor a chunk gave them.")
        self._last_shape = (horizon, dim)
        return horizon, dim


def _coefficients(chunks: np.ndarray, scale: float) -> np.ndarray:
    return np.around(scipy.fft.dct(chunks, axis=1, norm="ortho") * scale)


def _text(codes: np.ndarray) -> str:
    return "".join(chr(int(code)) for code in codes)


def _byte_characters(text: str) -> str:
    """How byte-level BPE spells a string: one printable character for each UTF-8 byte."""
    pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return "".join(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text))


def _train_bpe(texts: list[str], *, alphabet: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=alphabet,
        max_token_length=10000,
    )
    bpe.train_from_iterator(texts, trainer=trainer)
    return bpe


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in ("scale", "min_token") if name not in content]
    if missing:
        raise ValueError(f"{SETTINGS_FILE} has no {' and no '.join(missing)}")
    known = ("scale", "vocab_size", "min_token", "time_horizon", "action_dim")
    return {name: content[name] for name in known if name in content}
