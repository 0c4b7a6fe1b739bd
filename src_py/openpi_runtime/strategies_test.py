import dataclasses

import numpy as np
import pytest

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.strategies import STRATEGIES, Strategy, blend, make_strategy, prefix_weights

PERIOD_NS = 20_000_000


def make(chunk_id: int, stamp: int, value: float = 0.0, per_step: float = 0.0, horizon: int = 10) -> ActionChunk:
    """Stamped in steps; row k is value + k * per_step."""
    actions = (value + per_step * np.arange(horizon))[:, None]
    return ActionChunk(
        chunk_id=chunk_id, stamp_ns=stamp * PERIOD_NS, period_ns=PERIOD_NS, actions=actions, action_names=("a",)
    )


def play(strategy: Strategy, begin: int, end: int) -> list[float | None]:
    """What is executed at the steps from begin up to end."""
    steps = [strategy.step(k * PERIOD_NS) for k in range(begin, end)]
    return [None if step is None else float(step.action[0]) for step in steps]


def test_open_loop_executes_its_steps_then_the_newest() -> None:
    strategy = make_strategy("open_loop", steps=3)
    strategy.add(make(1, 0, per_step=1.0), 0)
    assert play(strategy, 2, 4) == [0, 1]
    strategy.add(make(2, 3, 10.0, 1.0), 0)
    strategy.add(make(3, 4, 20.0, 1.0), 0)
    assert play(strategy, 4, 9) == [2, 20, 21, 22, None]


def test_open_loop_reports_what_is_left_of_its_steps() -> None:
    strategy = make_strategy("open_loop", steps=3)
    strategy.add(make(1, 0), 0)
    left = [step.left for k in range(3) if (step := strategy.step(k * PERIOD_NS)) is not None]
    assert left == [2, 1, 0]


def test_open_loop_takes_up_no_stale_motion() -> None:
    strategy = make_strategy("open_loop", steps=8)
    strategy.add(make(1, 0, per_step=1.0), 0)
    assert play(strategy, 0, 3) == [0, 1, 2]
    assert play(strategy, 20, 22) == [None, None]
    strategy.add(make(2, 20), 0)
    assert play(strategy, 40, 41) == [None]


def test_latest_enters_by_time() -> None:
    strategy = make_strategy("latest")
    strategy.add(make(1, 0, per_step=1.0), 0)
    assert play(strategy, 0, 5) == [0, 1, 2, 3, 4]
    strategy.add(make(2, 2, 100.0, 1.0), 0)
    assert play(strategy, 5, 8) == [103, 104, 105]
    assert play(strategy, 12, 13) == [None]


def test_latest_keeps_to_the_old_chunk_until_the_new_begins() -> None:
    strategy = make_strategy("latest")
    strategy.add(make(1, 0, per_step=1.0), 0)
    strategy.add(make(2, 5, 100.0), 0)
    assert play(strategy, 3, 7) == [3, 4, 100, 100]


def test_temporal_ensemble_weighs_the_oldest_most() -> None:
    strategy = make_strategy("temporal_ensemble", m=0.5)
    for i, value in enumerate((1.0, 2.0, 4.0)):
        strategy.add(make(i, i, value), 0)
    weights = np.exp(-0.5 * np.arange(3))
    assert play(strategy, 4, 5) == [pytest.approx(weights @ [1, 2, 4] / weights.sum())]
    assert play(strategy, 11, 12) == [4]
    step = strategy.step(11 * PERIOD_NS)
    assert step is not None
    assert step.chunk_id == 2


def test_rtc_leaves_a_chunk_that_goes_on_with_the_plan_alone() -> None:
    strategy = make_strategy("rtc")
    strategy.add(make(1, 0, per_step=1.0), 0)
    play(strategy, 0, 4)
    strategy.add(dataclasses.replace(make(2, 2, 2.0, 1.0), frozen_steps=2), 4 * PERIOD_NS)
    assert play(strategy, 4, 6) == [4.0, 5.0]


@pytest.mark.parametrize("frozen_steps", [0, 1, 4])
def test_rtc_blends_whatever_does_not_join_by_itself(frozen_steps: int) -> None:
    strategy = make_strategy("rtc", schedule="linear", blend_s=6 * PERIOD_NS / 1e9)
    strategy.add(make(1, 0), 0)
    play(strategy, 0, 4)
    strategy.add(dataclasses.replace(make(2, 0, 1.0), stamp_ns=1, frozen_steps=frozen_steps), 4 * PERIOD_NS)
    values = play(strategy, 4, 10)
    assert values == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7])


def test_rtc_does_not_blend_with_what_is_past() -> None:
    strategy = make_strategy("rtc")
    strategy.add(make(1, 0), 0)
    strategy.add(make(2, 15, 1.0), 16 * PERIOD_NS)
    assert play(strategy, 16, 18) == [1, 1]


def test_rtc_blends_of_blends_stay_continuous() -> None:
    rng = np.random.default_rng(0)
    strategy = make_strategy("rtc")
    values = []
    for k in range(60):
        if k % 3 == 0:
            strategy.add(make(k + 1, max(0, k - 2), float(rng.uniform(-1, 1)), horizon=30), k * PERIOD_NS)
        step = strategy.step(k * PERIOD_NS)
        assert step is not None
        values.append(step.action[0])
    assert np.abs(np.diff(values)).max() < 0.3  # the chunks themselves lie up to 2 apart


def test_mask_hand_computed() -> None:
    linear = prefix_weights(10, 2, 6, "linear")
    assert linear == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])
    assert prefix_weights(10, 2, 6, "exponential") == pytest.approx(linear * np.expm1(linear) / np.expm1(1))
    assert prefix_weights(6, 2, 5)[2:] == pytest.approx([(2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0])
    assert prefix_weights(10, 2, 6, "ones") == pytest.approx([1] * 6 + [0] * 4)
    assert prefix_weights(10, 2, 6, "zeros") == pytest.approx([1] * 2 + [0] * 8)
    assert prefix_weights(4, 6, 2) == pytest.approx([1, 1, 1, 1])


def test_blend_equals_the_previous_chunk_before_its_entry() -> None:
    previous, new = make(1, 0, per_step=1.0), make(2, 4, 100.0)
    mixed = blend(previous, new, entry=3, steps=3)
    assert mixed.actions[:3, 0] == pytest.approx([4, 5, 6])
    assert mixed.actions[6:, 0] == pytest.approx(100.0)
    assert np.all(np.diff(mixed.actions[2:7, 0]) > 0)


def test_blend_goes_on_beyond_the_end_of_the_previous_chunk() -> None:
    previous, new = make(1, 0, 1.0), make(2, 7, 0.0)  # overlap in steps 0 to 2
    mixed = blend(previous, new, entry=1, steps=5, schedule="linear")
    assert mixed.actions[:, 0] == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0, 0, 0])


def test_blend_with_a_chunk_that_ends_before_the_new_one_begins_keeps_its_last_gap() -> None:
    previous, new = make(1, 0, per_step=1.0, horizon=3), make(2, 40, 10.0, 1.0)
    mixed = blend(previous, new, entry=0, steps=4, schedule="linear")
    assert mixed.actions[:, 0] == pytest.approx([3.6, 6.2, 8.8, 11.4, 14, 15, 16, 17, 18, 19])


def test_blend_with_a_chunk_that_begins_later_holds_its_first_step() -> None:
    mixed = blend(make(1, 4, per_step=1.0), make(2, 0, 10.0), entry=6, steps=1, schedule="linear")
    assert mixed.actions[:, 0] == pytest.approx([0, 0, 0, 0, 0, 1, 6, 10, 10, 10])


def test_blend_never_leaves_the_range_of_both_chunks() -> None:
    previous, new = make(1, 0, 1.0), make(2, 7, 0.0, 0.25)  # the new one rises to 2.25 after the other's end
    rising = np.clip(np.arange(10) / 4, 0, 1)[:, None]
    mixed = blend(previous, dataclasses.replace(new, actions=rising), entry=1, steps=20)
    assert mixed.actions.max() == 1.0


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_give_nothing_when_empty_or_cleared(name: str) -> None:
    strategy = make_strategy(name)
    assert strategy.step(0) is None
    strategy.add(make(1, 0), 0)
    strategy.clear()
    assert strategy.step(0) is None


def test_errors_name_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="allowed: open_loop, latest, temporal_ensemble, rtc"):
        make_strategy("newest")
    with pytest.raises(ValueError, match="'latest' does not take these parameters"):
        make_strategy("latest", m=3)
    with pytest.raises(ValueError, match="no mask schedule 'cubic'; allowed: cosine, exponential"):
        make_strategy("rtc", schedule="cubic")
