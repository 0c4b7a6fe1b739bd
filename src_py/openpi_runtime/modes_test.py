import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpi_runtime.modes import TRANSITIONS, Event, Mode, ModeMachine, State


def machine(*events: Event) -> ModeMachine:
    made = ModeMachine()
    for event in events:
        made.handle(event, event.value)
    return made


def test_the_usual_way() -> None:
    made = machine()
    assert made.mode is Mode.IDLE
    for event, mode in [
        (Event.RUN, Mode.HOLD),
        (Event.DATA_FRESH, Mode.RUNNING),
        (Event.DATA_LOST, Mode.HOLD),
        (Event.DATA_FRESH, Mode.RUNNING),
        (Event.STOP, Mode.IDLE),
    ]:
        assert made.handle(event)
        assert made.mode is mode


def test_numbers_are_those_of_the_message() -> None:
    assert [mode.value for mode in (Mode.IDLE, Mode.RUNNING, Mode.HOLD, Mode.ESTOP)] == [0, 1, 2, 3]


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_nothing_but_reset_leaves_estop_or_a_latched_hold(events: list[Event]) -> None:
    made = ModeMachine()
    for event in events:
        before = made.state
        made.handle(event, "because")
        if before in (State.LATCHED, State.ESTOP) and made.state is not before:
            assert event is Event.RESET or (before is State.LATCHED and event is Event.ESTOP)
        if made.state is State.RUNNING:
            assert before in (State.RUNNING, State.WAITING)
        if event is Event.ESTOP:
            assert made.state is State.ESTOP
        assert bool(made.reason) == (made.mode in (Mode.HOLD, Mode.ESTOP))


def test_every_state_is_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    assert {state for (state, event), target in TRANSITIONS.items() if target is not state} == set(State)


def test_reasons_of_a_latch_stay() -> None:
    made = machine(Event.RUN, Event.DATA_FRESH, Event.LIMIT)
    assert made.reason == "limit"
    made.handle(Event.DATA_LOST, "later")
    assert made.reason == "limit"


@pytest.mark.parametrize("state", State)
def test_refusals_agree_with_the_table(state: State) -> None:
    for event in (Event.RUN, Event.RESET):
        made = ModeMachine()
        made.state, made.reason = state, "x"
        refused = bool(made.refusal(event))
        stays = not made.handle(event)
        already_runs = event is Event.RUN and state in (State.RUNNING, State.WAITING)
        assert refused == (stays and not already_runs)
