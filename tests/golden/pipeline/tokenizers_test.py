"""Tokenizers against vectors of the reference: ids, masks, dtypes and decoded actions, all exact."""

import json
import logging
from typing import Any

import numpy as np
import pytest

from openpi.models.fast_processor import FastActionProcessor
from openpi.models.tokenizer import FASTTokenizer, PaligemmaTokenizer


@pytest.fixture(scope="module")
def cases(golden) -> dict[str, Any]:
    return json.loads(golden("tokenizer/tokenizer_goldens.json").read_text())


@pytest.fixture(scope="module")
def chunks(golden) -> dict[str, np.ndarray]:
    return dict(np.load(golden("tokenizer/fast_chunks.npz")))


def state_of(case: dict[str, Any]) -> np.ndarray | None:
    return None if case["state"] is None else np.array(case["state"], case["state_dtype"])


def check(arrays: tuple[np.ndarray, ...], case: dict[str, Any], names: tuple[str, ...]) -> None:
    assert [str(array.dtype) for array in arrays] == case["dtypes"]
    for array, name in zip(arrays, names, strict=True):
        np.testing.assert_array_equal(array, case[name], err_msg=f"{name} of {case['prompt']!r}")


def test_paligemma_prompts(cases, sentencepiece_model):
    for case in cases["paligemma"]:
        tokenizer = PaligemmaTokenizer(case["max_len"], model_path=sentencepiece_model)
        check(tokenizer.tokenize(case["prompt"], state_of(case)), case, ("tokens", "mask"))


def test_fast_sequences(cases, chunks, sentencepiece_model, fast_folder):
    for case in cases["fast"]:
        tokenizer = FASTTokenizer(case["max_len"], fast_folder, model_path=sentencepiece_model)
        index = case["action_chunk_index"]
        actions = None if index is None else chunks["actions"][index]
        arrays = tokenizer.tokenize(case["prompt"], state_of(case), actions)
        check(arrays, case, ("tokens", "mask", "ar_mask", "loss_mask"))


def test_extracted_actions_right_and_malformed(cases, chunks, sentencepiece_model, fast_folder):
    tokenizer = FASTTokenizer(256, fast_folder, model_path=sentencepiece_model)
    horizon, dim = chunks["actions"].shape[1:]
    for case in cases["extract"]:
        actions = tokenizer.extract_actions(np.array(case["tokens"], np.int32), horizon, dim)
        assert str(actions.dtype) == case["dtype"], case["case"]
        np.testing.assert_allclose(actions, case["actions"], rtol=0, atol=1e-12, err_msg=case["case"])
        assert (not actions.any()) == case["all_zero"], case["case"]


def test_fast_processor(chunks, fast_folder, caplog):
    processor = FastActionProcessor.load(fast_folder)
    tokens = [chunks[f"tokens{i}"].tolist() for i in range(len(chunks["actions"]))]
    assert processor(chunks["actions"]) == tokens
    horizon, dim = chunks["actions"].shape[1:]
    decoded = processor.decode(tokens, time_horizon=horizon, action_dim=dim)
    np.testing.assert_allclose(decoded, chunks["decoded"], rtol=0, atol=1e-12)
    with caplog.at_level(logging.WARNING):
        wrong = processor.decode(tokens[:1], time_horizon=horizon + 1, action_dim=dim)
    np.testing.assert_array_equal(wrong, chunks["decoded_wrong_horizon"])
    assert "11 x 8" in caplog.text
