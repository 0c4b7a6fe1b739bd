import numpy as np

from openpi.serving.benchmark import Turns, ratios


def test_ratios_with_their_intervals():
    rng = np.random.default_rng(0)
    times = [list(rng.gamma(5.0, size=200)) for _ in range(20)]
    halved = Turns([[one / 2 for one in turn] for turn in times])
    compared = ratios(halved, Turns(times))
    assert compared.keys() == {"p50_ratio", "p99_ratio"}
    for words in compared.values():
        measured, low, high = map(float, words.replace("(", "").replace(")", "").replace("-", " ").split())
        assert measured == 0.5
        assert 0.4 < low < 0.5 < high < 0.6


def test_a_row_is_over_all_turns():
    row = Turns([[1.0] * 99, [2.0] * 101], [10.0, 20.0]).row()
    assert row == {"p50_ms": 2.0, "p99_ms": 2.0, "requests_per_s": 15.0}
