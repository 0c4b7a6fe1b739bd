import json

import numpy as np
import pytest

from openpi.models.fast_processor import FastActionProcessor


@pytest.fixture(scope="module")
def chunks() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.clip(np.cumsum(rng.normal(scale=0.1, size=(300, 16, 3)), axis=1), -1, 1)


@pytest.fixture(scope="module")
def processor(chunks) -> FastActionProcessor:
    return FastActionProcessor.fit(chunks, vocab_size=400)


def test_round_trip_loses_only_the_rounding(processor, chunks):
    decoded = processor.decode(processor(chunks))
    # Half a step in each of 16 coefficients, of which the orthonormal transform keeps the norm.
    assert np.linalg.norm(decoded - chunks, axis=1).max() <= 0.5 / processor.scale * np.sqrt(16) + 1e-9


def test_compresses_smooth_chunks(processor, chunks):
    assert np.mean([len(tokens) for tokens in processor(chunks)]) < 0.75 * chunks[0].size


def test_one_chunk_is_a_batch_of_one(processor, chunks):
    assert processor(chunks[0]) == processor(chunks[:1])


def test_saved_and_loaded_gives_the_same_tokens(processor, chunks, tmp_path):
    processor.save(tmp_path)
    loaded = FastActionProcessor.load(tmp_path)
    assert loaded(chunks) == processor(chunks)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_coefficients_never_seen_are_clipped_not_dropped(processor):
    wild = np.random.default_rng(2).normal(scale=3, size=(20, 16, 3))
    decoded = processor.decode(processor(wild), time_horizon=16, action_dim=3)
    assert (np.abs(decoded).max(axis=(1, 2)) > 0).all()


def test_shape_comes_from_arguments_settings_or_the_last_chunk(processor, chunks):
    fresh = FastActionProcessor(processor.bpe, min_token=processor.min_token)
    tokens = processor(chunks[:1])
    with pytest.raises(ValueError, match="time_horizon and action_dim"):
        fresh.decode(tokens)
    fixed = FastActionProcessor(processor.bpe, min_token=processor.min_token, time_horizon=16, action_dim=3)
    assert fixed.decode(tokens).shape == (1, 16, 3)
    fresh(chunks[:1])
    assert fresh.decode(tokens).shape == (1, 16, 3)


@pytest.mark.parametrize("tokens", [[], [0], [399] * 3, [-1], [10**9], [2**70]])
def test_tokens_that_make_no_chunk_give_zeros(processor, tokens, caplog):
    np.testing.assert_array_equal(processor.decode([tokens], time_horizon=16, action_dim=3), np.zeros((1, 16, 3)))
    assert "no action chunk" in caplog.text


def test_bad_actions(processor):
    with pytest.raises(ValueError, match=r"\[batch, horizon, dim\]"):
        processor(np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        processor(np.full((4, 3), np.nan))


def test_fit_refuses_what_it_cannot_code(chunks):
    with pytest.raises(ValueError, match="no action chunks"):
        FastActionProcessor.fit([])
    with pytest.raises(ValueError, match=r"span \d+ values and vocab_size is 10"):
        FastActionProcessor.fit(chunks, vocab_size=10)


def test_incomplete_and_broken_folders(processor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        FastActionProcessor.load(tmp_path)
    processor.save(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps({"scale": 10}))
    with pytest.raises(ValueError, match="no min_token"):
        FastActionProcessor.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        FastActionProcessor.load(tmp_path)
