import numpy as np
import pytest

from openpi.models.fsq import FsqCodec


@pytest.fixture(scope="module")
def chunks() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.cumsum(rng.normal(scale=0.1, size=(300, 8, 3)), axis=1)


def test_codes_are_in_the_code_book_and_more_of_them_are_closer(chunks):
    errors = []
    for num_tokens in (1, 3, 6):
        codec = FsqCodec.fit(chunks, num_tokens)
        codes = np.array([codec.encode(chunk) for chunk in chunks])
        assert codes.shape == (300, num_tokens)
        assert codes.min() >= 0
        assert codes.max() < 1000
        decoded = np.array([codec.decode(one, 8, 3) for one in codes])
        errors.append(np.abs(decoded - chunks).mean())
    assert errors[0] > errors[1] > errors[2]


def test_save_and_load(chunks, tmp_path):
    codec = FsqCodec.fit(chunks, 3)
    codec.save(tmp_path)
    loaded = FsqCodec.load(tmp_path)
    np.testing.assert_array_equal(loaded.encode(chunks[0]), codec.encode(chunks[0]))
    assert loaded.levels == codec.levels


@pytest.mark.parametrize("codes", [[1, 2], [1, 2, 1000], [1, 2, -1]])
def test_wrong_codes_give_zeros(chunks, codes):
    np.testing.assert_array_equal(FsqCodec.fit(chunks, 3).decode(np.array(codes), 8, 3), np.zeros((8, 3)))


def test_errors(chunks):
    with pytest.raises(ValueError, match="100 tokens need 400 components"):
        FsqCodec.fit(chunks, 100)
    with pytest.raises(ValueError, match="shape"):
        FsqCodec.fit(chunks, 3).encode(np.zeros((7, 3)))
