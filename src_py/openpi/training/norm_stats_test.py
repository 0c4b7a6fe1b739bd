"""What looks wrong in statistics; the pass over a data set is tested with the loop."""

import numpy as np
import pytest

from openpi.shared.normalize import NormStats, RunningStats
from openpi.training import norm_stats


def stats_of(values: np.ndarray) -> dict[str, NormStats]:
    running = RunningStats()
    running.update(values)
    return {"actions": running.get_statistics()}


def texts(values: np.ndarray) -> list[tuple[int, str]]:
    return [(finding.dim, finding.text) for finding in norm_stats.suspicions(stats_of(values))]


@pytest.fixture
def healthy() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (4000, 3))


def test_healthy_statistics_raise_no_suspicion(healthy: np.ndarray) -> None:
    assert texts(healthy) == []


def test_constant_dimension(healthy: np.ndarray) -> None:
    healthy[:, 1] = 0.7
    ((dim, text),) = texts(healthy)
    assert dim == 1
    assert "constant at 0.7" in text


def test_tiny_range(healthy: np.ndarray) -> None:
    healthy[:, 2] *= 1e-5
    ((dim, text),) = texts(healthy)
    assert dim == 2
    assert "q99 - q01 is only" in text


def test_outliers_make_quantiles_and_z_score_disagree(healthy: np.ndarray) -> None:
    healthy[:20, 0] = 500.0
    found = texts(healthy)
    assert {dim for dim, _ in found} == {0}
    assert "quantiles and z-score disagree" in found[0][1]
