import importlib.resources
import logging

import numpy as np
import pytest
import sentencepiece

from openpi.models import sentencepiece_writer
from openpi.models.fast_processor import FastActionProcessor
from openpi.models.fsq import FsqCodec
from openpi.models.tokenizer import BinningTokenizer, FASTTokenizer, FSQTokenizer, PaligemmaTokenizer

SMALL_MODEL = importlib.resources.files("openpi") / "assets" / "small_tokenizer.model"


@pytest.fixture(scope="module")
def chunks() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(np.cumsum(rng.normal(scale=0.2, size=(200, 10, 4)), axis=1), -1, 1)


@pytest.fixture(scope="module")
def fast_folder(chunks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fast")
    FastActionProcessor.fit(chunks, vocab_size=300).save(folder)
    return folder


def text_of(ids: np.ndarray) -> str:
    return sentencepiece.SentencePieceProcessor(model_file=str(SMALL_MODEL)).decode(ids.tolist())


def test_the_small_model_has_the_layout_of_paligemma():
    model = sentencepiece.SentencePieceProcessor(model_file=str(SMALL_MODEL))
    assert [model.pad_id(), model.eos_id(), model.bos_id(), model.unk_id()] == [0, 1, 2, 3]
    assert model.vocab_size() == 1536
    assert model.id_to_piece(1535) == "<seg127>"
    assert model.id_to_piece(1536 - 128 - 1) == "<loc0255>"
    for text in ("Transfer cube", "Pick up the red block.\n", "naïve café ☕ 42", "  two  spaces "):
        assert model.decode(model.encode(text)) == text
    assert len(model.encode("insert the peg into the socket")) == 6


def test_prompt_without_state():
    ids, mask = PaligemmaTokenizer(12, model_path=SMALL_MODEL).tokenize(" fold_the\ntowel ")
    assert ids.shape == mask.shape == (12,)
    assert ids[0] == 2
    assert text_of(ids[mask][1:]) == "fold the towel\n"
    assert (ids[~mask] == 0).all()


def test_prompt_with_state_shows_the_bins():
    state = np.array([-1.5, -1.0, 0.0, 1.0, 7.0], np.float32)
    ids, mask = PaligemmaTokenizer(64, model_path=SMALL_MODEL).tokenize("Open", state)
    assert text_of(ids[mask]) == "Task: Open, State: -1 0 128 255 255;\nAction: "


def test_too_long_a_prompt_is_cut_with_a_warning(caplog):
    tokenizer = PaligemmaTokenizer(4, model_path=SMALL_MODEL)
    whole, _ = PaligemmaTokenizer(7, model_path=SMALL_MODEL).tokenize("pick up the red block")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        ids, mask = tokenizer.tokenize("pick up the red block")
    assert "prompt has 7 tokens and is cut to 4" in caplog.text
    assert mask.all()
    np.testing.assert_array_equal(ids, whole[:4])


@pytest.mark.parametrize(("state", "message"), [([[0.0]], "must be one vector"), ([0.0, np.nan], r"NaN at \[1\]")])
def test_bad_state(state, message):
    with pytest.raises(ValueError, match=message):
        PaligemmaTokenizer(model_path=SMALL_MODEL).tokenize("x", np.array(state))


def test_missing_file_says_where_and_how(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        PaligemmaTokenizer()
    message = str(caught.value)
    assert str(tmp_path / "big_vision" / "paligemma_tokenizer.model") in message
    assert "openpi fetch-tokenizer" in message
    assert "OPENPI_DATA_HOME" in message
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        PaligemmaTokenizer(model_path=tmp_path / "elsewhere")


def test_file_in_the_data_home_is_found(monkeypatch, tmp_path):
    target = tmp_path / "big_vision" / "paligemma_tokenizer.model"
    target.parent.mkdir()
    target.write_bytes(SMALL_MODEL.read_bytes())
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path))
    assert PaligemmaTokenizer().tokenize("x")[0].shape == (48,)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="is no SentencePiece model"):
        PaligemmaTokenizer(model_path=tmp_path / "model")


def test_fast_sequence_masks_and_round_trip(chunks, fast_folder):
    tokenizer = FASTTokenizer(200, fast_folder, model_path=SMALL_MODEL)
    state = np.zeros(3)
    prefix, prefix_mask, prefix_ar, prefix_loss = tokenizer.tokenize("Fold_It ", state, None)
    ids, mask, ar_mask, loss_mask = tokenizer.tokenize("Fold_It ", state, chunks[0])
    start = prefix_mask.sum()
    assert text_of(prefix[prefix_mask]) == "Task: fold it, State: 128 128 128;\n"
    assert not prefix_ar.any()
    assert not prefix_loss.any()
    np.testing.assert_array_equal(ids[:start], prefix[:start])
    np.testing.assert_array_equal(ar_mask, np.where(mask & (np.arange(200) >= start), 1, 0))
    np.testing.assert_array_equal(loss_mask, ar_mask == 1)
    assert ids[mask][-1] == 1
    decoded = tokenizer.extract_actions(ids[start:], 10, 4)
    assert np.abs(decoded - chunks[0]).max() < 0.2


@pytest.mark.parametrize("tokens", [[], [0, 0], [1, 2, 3], [-5, 10**6], [1535]])
def test_malformed_output_gives_zeros(fast_folder, tokens):
    actions = FASTTokenizer(200, fast_folder, model_path=SMALL_MODEL).extract_actions(np.array(tokens), 10, 4)
    np.testing.assert_array_equal(actions, np.zeros((10, 4)))


def test_fast_tokenizer_not_here(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match=r"physical-intelligence/fast.*fast_tokenizer_path"):
        FASTTokenizer(model_path=SMALL_MODEL)


def test_fast_tokenizer_from_the_hub_cache(monkeypatch, tmp_path, fast_folder):
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--physical-intelligence--fast" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in fast_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    assert len(FASTTokenizer(model_path=SMALL_MODEL).tokenize("x", np.zeros(2), None)) == 4


def test_fast_vocabulary_must_fit(tmp_path, chunks):
    FastActionProcessor.fit(chunks, vocab_size=2000).save(tmp_path)
    tiny = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<s>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces = [*tiny, *sentencepiece_writer.byte_pieces(), *sentencepiece_writer.location_pieces(0)]
    (tmp_path / "tiny.model").write_bytes(sentencepiece_writer.serialize(pieces))
    with pytest.raises(ValueError, match=r"has room for 260"):
        FASTTokenizer(fast_tokenizer_path=tmp_path, model_path=tmp_path / "tiny.model")


def test_binning_round_trip(chunks):
    tokenizer = BinningTokenizer(300, n_bins=128, model_path=SMALL_MODEL)
    ids, _, ar_mask, _ = tokenizer.tokenize("x", np.zeros(2), chunks[0])
    decoded = tokenizer.extract_actions(ids[ar_mask == 1], 10, 4)
    assert decoded.shape == (10, 4)
    assert np.abs(decoded - chunks[0]).max() <= 2 / 128
    np.testing.assert_array_equal(tokenizer.extract_actions(ids[:5], 10, 4), np.zeros((10, 4)))
    with pytest.raises(ValueError, match="NaN"):
        tokenizer.tokenize("x", np.zeros(2), np.full((10, 4), np.nan))


def test_fsq_round_trip(chunks, tmp_path):
    FsqCodec.fit(chunks, num_tokens=8).save(tmp_path)
    tokenizer = FSQTokenizer(300, tmp_path, model_path=SMALL_MODEL)
    ids, _, ar_mask, _ = tokenizer.tokenize("x", np.zeros(2), chunks[0])
    decoded = tokenizer.extract_actions(ids[ar_mask == 1], 10, 4)
    error = np.abs(decoded - chunks[0]).mean()
    assert error < 0.5 * np.abs(chunks.mean(axis=0) - chunks[0]).mean()  # far better than always giving the mean
    with pytest.raises(FileNotFoundError, match="fsq_tokenizer_path"):
        FSQTokenizer(model_path=SMALL_MODEL).tokenize("x", np.zeros(2), chunks[0])
