import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpi.shared import normalize


def statistics_of(*batches: np.ndarray) -> normalize.NormStats:
    running = normalize.RunningStats()
    for batch in batches:
        running.update(batch)
    return running.get_statistics()


def test_equal_to_numpy_over_growing_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(scale=scale, size=(50, 4, 3)) for scale in (0.1, 1.0, 5.0, 2.0)]
    everything = np.concatenate(batches).reshape(-1, 3)
    stats = statistics_of(*batches)
    np.testing.assert_allclose(stats.mean, everything.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats.std, everything.std(axis=0), rtol=1e-12)
    bins = np.ptp(everything, axis=0) / normalize.NUM_BINS
    for name, quantile in (("q01", 0.01), ("q99", 0.99)):
        exact = np.quantile(everything, quantile, axis=0, method="inverted_cdf")
        assert (np.abs(getattr(stats, name) - exact) <= 4 * bins).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_quantiles_stay_near_however_the_data_are_split(sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.uniform(-i - 1, i + 2, size=(size + 1, 2)) for i, size in enumerate(sizes)]
    everything = np.concatenate(batches)
    stats = statistics_of(*batches)
    bins = np.ptp(everything, axis=0) / normalize.NUM_BINS
    exact = np.quantile(everything, 0.99, axis=0, method="inverted_cdf")
    assert (np.abs(stats.q99 - exact) <= (len(sizes) + 1) * bins + 1e-12).all()


def test_constant_dimension():
    stats = statistics_of(np.full((5, 1), 3.0), np.full((5, 1), 3.0))
    assert (stats.mean, stats.std, stats.q01, stats.q99) == (3.0, 0.0, 3.0, 3.0)


def test_one_vector_is_a_batch_of_one():
    assert statistics_of(np.array([1.0, 2.0]), np.array([3.0, 6.0])).mean.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((0, 2)), "not empty"),
        (np.zeros((3, 5)), "5 values came after vectors of 2"),
        (np.array([[1.0, np.nan]]), r"NaN or infinity in dimensions \[1\]"),
    ],
)
def test_bad_batches(batch, message):
    running = normalize.RunningStats()
    running.update(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=message):
        running.update(batch)


def test_too_few_vectors():
    with pytest.raises(ValueError, match="at least 2 vectors; 1 were added"):
        statistics_of(np.zeros((1, 2)))


def test_file_round_trip(tmp_path):
    stats = {"state": statistics_of(np.eye(3)), "actions": normalize.NormStats(mean=[0.0], std=[1.0])}
    normalize.save(tmp_path / "new" / "folder", stats)
    loaded = normalize.load(tmp_path / "new" / "folder")
    assert list(loaded) == ["state", "actions"]
    for name in ("mean", "std", "q01", "q99"):
        np.testing.assert_array_equal(getattr(loaded["state"], name), getattr(stats["state"], name))
    assert loaded["actions"].q01 is None
    assert loaded["actions"].mean.dtype == np.float64


def test_missing_and_malformed_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"norm_stats\.json.*openpi norm-stats"):
        normalize.load(tmp_path)
    for text in ("{", json.dumps({"state": {}}), json.dumps({"norm_stats": {"state": {"std": [1]}}})):
        (tmp_path / "norm_stats.json").write_text(text)
        with pytest.raises(ValueError, match=r"norm_stats\.json: These are no normalisation statistics"):
            normalize.load(tmp_path)
