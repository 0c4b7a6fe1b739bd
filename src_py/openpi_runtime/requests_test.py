import dataclasses

import numpy as np
import pytest

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.modes import Mode
from openpi_runtime.requests import Progress, RequestPlanner, shifted
from openpi_runtime.strategies import make_strategy

PERIOD_NS = 20_000_000


def chunk(chunk_id: int, step: int, horizon: int = 50) -> ActionChunk:
    return ActionChunk(
        chunk_id=chunk_id,
        stamp_ns=step * PERIOD_NS,
        period_ns=PERIOD_NS,
        actions=np.arange(float(horizon))[:, None],
        action_names=("a",),
    )


def progress(chunk_id: int, next_step: int, mode: Mode = Mode.RUNNING, left: int | None = None) -> Progress:
    steps_left = 50 - next_step if left is None else left
    return Progress(mode=mode, chunk_id=chunk_id, next_step=next_step, steps_left=steps_left)


def running(strategy: str, horizon: int = 50, **params: int) -> RequestPlanner:
    """A planner whose first chunk, from step 0, was entered at step 4 after 0.08 s."""
    planner = RequestPlanner(strategy, PERIOD_NS, **params)
    planner.on_progress(progress(0, 0, Mode.HOLD))
    assert planner.due(0)
    assert planner.ask(0) == {}
    planner.answered(chunk(1, 0, horizon), 4 * PERIOD_NS, 0.08)
    planner.on_progress(progress(1, 5))
    return planner


def test_asks_nothing_while_idle_or_stopped() -> None:
    planner = RequestPlanner("latest", PERIOD_NS)
    for mode, due in ((Mode.IDLE, False), (Mode.ESTOP, False), (Mode.HOLD, True)):
        planner.on_progress(progress(0, 0, mode))
        assert planner.due(0) is due


def test_one_request_at_a_time_and_none_twice_from_one_observation() -> None:
    planner = RequestPlanner("latest", PERIOD_NS, interval_steps=1)
    planner.on_progress(progress(0, 0, Mode.HOLD))
    planner.ask(0)
    assert not planner.due(PERIOD_NS)
    planner.failed()
    assert not planner.due(0)
    assert planner.due(PERIOD_NS)


def test_asks_again_after_the_interval() -> None:
    planner = running("latest", interval_steps=25)
    assert not planner.due(24 * PERIOD_NS)
    assert planner.due(25 * PERIOD_NS)
    assert running("latest", interval_steps=1).due(PERIOD_NS)


@pytest.mark.parametrize(("horizon", "asks_at"), [(30, 25), (28, 23), (12, 12)])
def test_asks_earlier_where_the_chunk_would_end_before_the_next_comes(horizon: int, asks_at: int) -> None:
    planner = running("latest", interval_steps=25, horizon=horizon)  # four steps late
    assert not planner.due((asks_at - 1) * PERIOD_NS)
    assert planner.due(asks_at * PERIOD_NS)


def test_hold_asks_at_once() -> None:
    planner = running("latest", interval_steps=25)
    for _ in range(2):
        planner.on_progress(progress(1, 10, Mode.HOLD))
    assert planner.due(11 * PERIOD_NS)


def test_hold_does_not_ask_again_before_the_answer_can_have_been_taken() -> None:
    planner = running("open_loop")
    planner.ask(30 * PERIOD_NS)
    planner.answered(chunk(2, 30), 35 * PERIOD_NS, 0.1)
    for due in (False, False, True):
        planner.on_progress(progress(1, 25, Mode.HOLD))
        assert planner.due(36 * PERIOD_NS) is due


def test_open_loop_asks_when_its_steps_are_done() -> None:
    planner = running("open_loop")
    planner.on_progress(progress(1, 24, left=1))
    assert not planner.due(30 * PERIOD_NS)
    planner.on_progress(progress(1, 25, left=0))
    assert planner.due(31 * PERIOD_NS)


def test_rtc_sends_the_rest_of_the_chunk_with_the_measured_delay() -> None:
    fields = running("rtc").ask(25 * PERIOD_NS)
    assert fields["rtc/prev_actions"][:, 0].tolist() == [*range(25, 50), *[49] * 25]
    assert fields["rtc/prev_valid"] == 25
    assert fields["rtc/delay"] == 4
    assert fields["rtc/execution_horizon"] == 25
    assert fields["rtc/guidance_weight"] == 5.0


def test_a_chunk_that_the_executor_is_in_the_middle_of_tells_no_delay() -> None:
    planner = RequestPlanner("rtc", PERIOD_NS)
    planner.on_progress(progress(17, 40))  # of the policy node before this one
    assert planner.delays.expect() == 0
    planner.on_progress(progress(1, 5))
    assert planner.delays.expect() == 4
    planner.reset()
    planner.on_progress(progress(1, 30))
    assert planner.delays.expect() == 4


def test_rtc_sends_what_the_executor_plays_not_what_the_policy_said() -> None:
    planner = running("rtc")
    planner.ask(25 * PERIOD_NS)
    planner.answered(dataclasses.replace(chunk(2, 25), actions=np.zeros((50, 1))), 29 * PERIOD_NS, 0.08)
    strategy = make_strategy("rtc")
    strategy.add(chunk(1, 0), 0)
    strategy.add(dataclasses.replace(chunk(2, 25), actions=np.zeros((50, 1))), 29 * PERIOD_NS)
    sent = planner.ask(32 * PERIOD_NS)["rtc/prev_actions"][:, 0]
    played = [step.action[0] for k in range(32, 60) if (step := strategy.step(k * PERIOD_NS)) is not None]
    assert sent[:28] == pytest.approx(played)
    assert 0 < sent[0] < 32


def test_rtc_writes_relative_columns_relative_to_the_new_state() -> None:
    planner = RequestPlanner("rtc", PERIOD_NS)
    planner.on_progress(progress(0, 0, Mode.HOLD))
    planner.ask(0, np.array([5.0]))
    planner.answered(chunk(1, 0), 4 * PERIOD_NS, 0.08)
    planner.on_progress(progress(1, 5))
    fields = planner.ask(25 * PERIOD_NS, np.array([7.0]))
    assert fields["rtc/prev_actions"][:3, 0].tolist() == [23.0, 24.0, 25.0]  # 25 + 5 - 7


def test_rtc_starts_afresh_after_a_hold_and_beyond_the_chunk() -> None:
    planner = running("rtc")
    assert planner.ask(60 * PERIOD_NS) == {}
    planner.failed()
    planner.on_progress(progress(1, 50, Mode.HOLD))
    assert planner.ask(30 * PERIOD_NS) == {}


def test_rtc_fixed_delay_is_bounded_by_what_is_left() -> None:
    assert running("rtc", delay=20).ask(40 * PERIOD_NS)["rtc/delay"] == 10


@pytest.mark.parametrize(("least", "told"), [(0, 10), (30, 30), (48, 46)])
def test_rtc_execution_horizon_has_a_least_value_and_leaves_room_for_the_delay(least: int, told: int) -> None:
    assert running("rtc", execution_horizon=least).ask(10 * PERIOD_NS)["rtc/execution_horizon"] == told


def test_other_strategies_send_nothing() -> None:
    assert running("latest").ask(25 * PERIOD_NS) == {}


def test_reset_forgets_all_but_latency() -> None:
    planner = running("rtc")
    planner.reset()
    assert planner.due(0)
    assert planner.ask(0) == {}
    assert planner.latency.requests == 1


@pytest.mark.parametrize(("shift", "first", "last"), [(0, 0, 4), (3, 3, 4), (9, 4, 4)])
def test_shifted_repeats_the_last_row(shift: int, first: int, last: int) -> None:
    rows = shifted(np.arange(5.0)[:, None], shift)
    assert rows.shape == (5, 1)
    assert (rows[0, 0], rows[-1, 0]) == (first, last)
