"""Text and actions as tokens: the prompt of pi0 and pi0.5, the token sequence of pi0-FAST and its relatives.

All use PaliGemma's SentencePiece vocabulary. Token arrays have length `max_len`, are padded with 0 or cut on the
right; ids are int64, masks bool.
"""

from __future__ import annotations

import abc
import functools
import logging
import os
import pathlib
from typing import Any, TypeAlias

import numpy as np
import sentencepiece

from openpi.models import fsq, tokenizer_files
from openpi.models.fast_processor import FastActionProcessor

logger = logging.getLogger(__name__)

PathLike: TypeAlias = str | os.PathLike[str]

STATE_BINS = 256
# PaliGemma's vocabulary ends in 128 <seg> tokens; action tokens count down from the one before.
RESERVED_TOKENS = 128


class PaligemmaTokenizer:
    """The prompt of pi0 and, with the state written into it, of pi0.5.

    The SentencePiece file is `model_path`, else big_vision/paligemma_tokenizer.model in the download cache.

    Raises:
        FileNotFoundError: it is not there; says where it was looked for and how to get it.
    """

    def __init__(self, max_len: int = 48, *, model_path: PathLike | None = None) -> None:
        self._max_len = max_len
        self._text = _load_sentencepiece(tokenizer_files.paligemma_model(model_path))

    def tokenize(self, prompt: str, state: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Prompt, and for pi0.5 the normalised and not yet padded state [d], -> ids and mask [max_len].

        A prompt that is too long is cut and a warning logged.

        Raises:
            ValueError: the state is no vector or holds NaN.
        """
        cleaned = prompt.strip().replace("_", " ").replace("\n", " ")
        if state is None:
            ids = self._text.encode(cleaned, add_bos=True) + self._text.encode("\n")
        else:
            ids = self._text.encode(f"Task: {cleaned}, State: {_state_text(state)};\nAction: ", add_bos=True)
        mask = _fit([True] * len(ids), self._max_len, "prompt")
        return _fit(ids, self._max_len).astype(np.int64), mask.astype(bool)


class _ActionTokenizer(abc.ABC):
    """Prompt and state as a prefix, actions as the tokens to be predicted: "Action: " tokens "|" EOS."""

    def __init__(self, max_len: int, model_path: PathLike | None) -> None:
        self._max_len = max_len
        self._text = _load_sentencepiece(tokenizer_files.paligemma_model(model_path))

    @abc.abstractmethod
    def _encode_actions(self, actions: np.ndarray) -> np.ndarray:
        """One chunk [h, d] -> codes from 0 upwards."""

    @abc.abstractmethod
    def _decode_actions(self, codes: np.ndarray, horizon: int, dim: int) -> np.ndarray:
        """Codes as the model gave them, right or not -> [h, d]; zeros where they make no chunk."""

    def tokenize(
        self, prompt: str, state: np.ndarray, actions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Prompt, normalised state [d] and, in training, normalised actions [h, d] -> four arrays [max_len].

        Returns:
            ids; mask of real tokens; autoregressive mask (int64: 0 prefix, 1 what follows); mask of the tokens that
            count in the loss (all after the prefix).

        Raises:
            ValueError: state or actions are of the wrong rank or hold NaN.
        """
        cleaned = prompt.lower().strip().replace("_", " ")
        prefix = self._text.encode(f"Task: {cleaned}, State: {_state_text(state)};\n", add_bos=True)
        postfix = [] if actions is None else self._postfix(np.asarray(actions))
        ids = prefix + postfix
        ar_mask = [0] * len(prefix) + [1] * len(postfix)
        return (
            _fit(ids, self._max_len).astype(np.int64),
            _fit([True] * len(ids), self._max_len, "token sequence").astype(bool),
            _fit(ar_mask, self._max_len).astype(np.int64),
            _fit(ar_mask, self._max_len).astype(bool),
        )

    def extract_actions(self, tokens: np.ndarray, action_horizon: int, action_dim: int) -> np.ndarray:
        """Generated tokens [n] -> actions [action_horizon, action_dim]; zeros where they hold no such chunk."""
        known = [int(token) for token in np.asarray(tokens).ravel() if 0 <= token < self._text.vocab_size()]
        text = self._text.decode(known)
        if "Action: " not in text:
            logger.warning("The model generated no actions; the chunk is zero.")
            return np.zeros((action_horizon, action_dim), np.float32)
        # Through text and back, as in training data: pieces may merge differently from how they were generated.
        written = text.split("Action: ")[1].split("|")[0].strip()
        return self._decode_actions(self._mapped(self._text.encode(written)), action_horizon, action_dim)

    def _postfix(self, actions: np.ndarray) -> list[int]:
        codes = self._mapped(self._encode_actions(actions)).tolist()
        return self._text.encode("Action: ") + codes + self._text.encode("|", add_eos=True)

    def _mapped(self, codes: Any) -> np.ndarray:
        """Action codes -> vocabulary ids, and the other way: the mapping is its own inverse."""
        return self._text.vocab_size() - 1 - RESERVED_TOKENS - np.asarray(codes, np.int64)


class FASTTokenizer(_ActionTokenizer):
    """The token sequence of pi0-FAST.

    `fast_tokenizer_path` is a folder that `FastActionProcessor.save` wrote, or a Hugging Face name whose files were
    downloaded before.

    Raises:
        FileNotFoundError: a tokenizer's file is not there; says where it was looked for and how to get it.
        ValueError: the FAST vocabulary does not fit into the SentencePiece one.
    """

    def __init__(
        self,
        max_len: int = 256,
        fast_tokenizer_path: PathLike = "physical-intelligence/fast",
        *,
        model_path: PathLike | None = None,
    ) -> None:
        super().__init__(max_len, model_path)
        self._processor = FastActionProcessor.load(tokenizer_files.fast_folder(fast_tokenizer_path))
        room = self._text.vocab_size() - RESERVED_TOKENS
        if self._processor.bpe.get_vocab_size() > room:
            raise ValueError(
                f"The FAST tokenizer has {self._processor.bpe.get_vocab_size()} tokens and the SentencePiece model has "
                f"room for {room}; fit one with a smaller vocab_size."
            )

    def _encode_actions(self, actions: np.ndarray) -> np.ndarray:
        return np.asarray(self._processor(actions)[0], np.int64)

    def _decode_actions(self, codes: np.ndarray, horizon: int, dim: int) -> np.ndarray:
        return self._processor.decode([codes.tolist()], time_horizon=horizon, action_dim=dim)[0]


class BinningTokenizer(_ActionTokenizer):
    """One token per action value: `n_bins` equal bins over -1..1, values outside go to the end bins (RT-2, OpenVLA)."""

    def __init__(self, max_len: int = 256, n_bins: int = 256, *, model_path: PathLike | None = None) -> None:
        super().__init__(max_len, model_path)
        self._n_bins = n_bins

    def _encode_actions(self, actions: np.ndarray) -> np.ndarray:
        if not np.isfinite(actions).all():
            raise ValueError("The actions hold NaN or infinity and cannot be tokenized; leave that sample out.")
        return np.clip((actions.ravel() + 1) / 2 * self._n_bins, 0, self._n_bins - 1).astype(np.int64)

    def _decode_actions(self, codes: np.ndarray, horizon: int, dim: int) -> np.ndarray:
        if len(codes) < horizon * dim:
            logger.warning("%d action tokens instead of %d x %d; the chunk is zero.", len(codes), horizon, dim)
            return np.zeros((horizon, dim), np.float32)
        return codes[: horizon * dim].reshape(horizon, dim) / self._n_bins * 2 - 1


class FSQTokenizer(_ActionTokenizer):
    """A fixed number of tokens per chunk by finite scalar quantisation, with the codec in `fsq_tokenizer_path`.

    The codec is read when actions are first encoded or decoded.

    Raises:
        FileNotFoundError: then, where the path holds no codec (see `openpi.models.fsq`).
    """

    def __init__(
        self, max_len: int = 256, fsq_tokenizer_path: PathLike | None = None, *, model_path: PathLike | None = None
    ) -> None:
        super().__init__(max_len, model_path)
        self._path = fsq_tokenizer_path

    @functools.cached_property
    def _codec(self) -> fsq.FsqCodec:
        return fsq.FsqCodec.load(self._path)

    def _encode_actions(self, actions: np.ndarray) -> np.ndarray:
        return self._codec.encode(actions)

    def _decode_actions(self, codes: np.ndarray, horizon: int, dim: int) -> np.ndarray:
        return self._codec.decode(codes, horizon, dim)


@functools.lru_cache(maxsize=4)
def _load(path: pathlib.Path, modified_ns: int) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path} is no SentencePiece model: {error}") from error


def _load_sentencepiece(path: pathlib.Path) -> sentencepiece.SentencePieceProcessor:
    return _load(path, path.stat().st_mtime_ns)


def _state_text(state: np.ndarray) -> str:
    state = np.asarray(state)
    if state.ndim != 1:
        raise ValueError(f"The state to be tokenized has shape {state.shape}; it must be one vector.")
    if np.isnan(state).any():
        raise ValueError(f"The state holds NaN at {np.flatnonzero(np.isnan(state)).tolist()}.")
    # Below -1 the bin is -1, not 0: published weights were trained with that.
    bins = np.digitize(state, np.linspace(-1, 1, STATE_BINS + 1)[:-1]) - 1
    return " ".join(map(str, bins))


def _fit(values: list, length: int, warn_as: str | None = None) -> np.ndarray:
    if len(values) > length and warn_as:
        logger.warning(
            "The %s has %d tokens and is cut to %d; shorten it or raise max_token_len.", warn_as, len(values), length
        )
    return np.asarray((values + [0] * (length - len(values)))[:length])
