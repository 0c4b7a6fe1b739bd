"""Writes SentencePiece models in PaliGemma's layout: special pieces, bytes, text, then <loc> and <seg> tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

# Piece types of the SentencePiece format.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

NUM_SEGMENTS = 128
# Gemma 1: pieces below this id are specials and bytes; from here on, earlier pieces merge first.
_GEMMA_FIRST_NORMAL = 473
_GEMMA_FIRST_BYTE = 217
_GEMMA_SPECIALS = {0: CONTROL, 1: CONTROL, 2: CONTROL, 3: UNKNOWN}
GEMMA_SIZE = 256_000
PALIGEMMA_LOCATIONS = 1024


def location_pieces(locations: int) -> list[tuple[str, float, int]]:
    """<loc0000> ... then <seg000> ... <seg127>: what PaliGemma adds at the end of its vocabulary."""
    names = [f"<loc{i:04d}>" for i in range(locations)] + [f"<seg{i:03d}>" for i in range(NUM_SEGMENTS)]
    return [(name, 0.0, USER_DEFINED) for name in names]


def paligemma_from_gemma(tokenizer_json: Mapping[str, Any]) -> bytes:
    """A Gemma 1 `tokenizer.json` (Hugging Face format) -> PaliGemma's SentencePiece model, 257152 pieces.

    Raises:
        ValueError: it is another vocabulary.
    """
    vocab = tokenizer_json["model"]["vocab"]
    pieces = {index: piece for piece, index in vocab.items()}
    if sorted(pieces) != list(range(GEMMA_SIZE)) or pieces[4521] != "Hello" or pieces[2134] != "▁world":
        raise ValueError(
            f"This is not Gemma 1's vocabulary: {len(pieces)} pieces, 4521 is {pieces.get(4521)!r}; needed are "
            f"{GEMMA_SIZE} with 4521 = 'Hello'. The vocabularies of Gemma 3 and later do not fit PaliGemma."
        )
    added = {token["id"] for token in tokenizer_json["added_tokens"]}
    entries = [_gemma_piece(index, pieces[index], index in added) for index in range(GEMMA_SIZE)]
    return serialize([*entries, *location_pieces(PALIGEMMA_LOCATIONS)])


def serialize(pieces: Iterable[tuple[str, float, int]]) -> bytes:
    """(piece, score, type) in the order of their ids -> a BPE model file that changes no text before encoding it."""
    from sentencepiece import sentencepiece_model_pb2 as format_pb2

    model = format_pb2.ModelProto()  # type: ignore[attr-defined]  # made when the module is imported
    for piece, score, kind in pieces:
        model.pieces.add(piece=piece, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size, spec.byte_fallback = 2, len(model.pieces), True
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = 0, 1, 2, 3
    for name, index in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        setattr(spec, f"{name}_piece", model.pieces[index].piece)
    normalizer = model.normalizer_spec
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = "identity", False, False
    return model.SerializeToString()


def byte_pieces() -> list[tuple[str, float, int]]:
    """<0x00> ... <0xFF>, for characters that no piece covers."""
    return [(f"<0x{value:02X}>", 0.0, BYTE) for value in range(256)]


_BYTES = tuple(byte_pieces())


def _gemma_piece(index: int, piece: str, added: bool) -> tuple[str, float, int]:
    if index in _GEMMA_SPECIALS:
        return piece, 0.0, _GEMMA_SPECIALS[index]
    if _GEMMA_FIRST_BYTE <= index < _GEMMA_FIRST_NORMAL:  # the JSON spells one of them, the tab, as itself
        return _BYTES[index - _GEMMA_FIRST_BYTE]
    if added:
        return piece, 0.0, USER_DEFINED
    return piece, float(_GEMMA_FIRST_NORMAL - index), NORMAL


def normal_pieces(texts: Iterable[str]) -> list[tuple[str, float, int]]:
    """Text pieces in merge order."""
    return [(text, -float(rank), NORMAL) for rank, text in zip(itertools.count(), texts)]
