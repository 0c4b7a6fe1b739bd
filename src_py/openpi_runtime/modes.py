"""The executor's modes as an explicit state machine: what leads where, and what needs a reset."""

from __future__ import annotations

import enum


class Mode(enum.IntEnum):
    """What users see; the numbers are those of openpi_msgs/ExecutorState."""

    IDLE = 0
    RUNNING = 1
    HOLD = 2
    ESTOP = 3


class State(enum.Enum):
    """Modes, with HOLD told apart by how it ends."""

    IDLE = "idle"
    RUNNING = "running"
    WAITING = "waiting"  # HOLD that ends by itself when data is fresh again
    LATCHED = "latched"  # HOLD that needs a reset
    ESTOP = "estop"

    @property
    def mode(self) -> Mode:
        """The mode this state is shown as."""
        return _MODES[self]


class Event(enum.Enum):
    """What can happen to the machine."""

    RUN = "run"
    STOP = "stop"
    DATA_LOST = "data_lost"
    DATA_FRESH = "data_fresh"
    LIMIT = "limit"
    ESTOP = "estop"
    RESET = "reset"


_MODES = {
    State.IDLE: Mode.IDLE,
    State.RUNNING: Mode.RUNNING,
    State.WAITING: Mode.HOLD,
    State.LATCHED: Mode.HOLD,
    State.ESTOP: Mode.ESTOP,
}

# Pairs that are not listed change nothing. ESTOP leads to ESTOP from everywhere.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.RUN): State.WAITING,
    (State.WAITING, Event.STOP): State.IDLE,
    (State.WAITING, Event.DATA_FRESH): State.RUNNING,
    (State.WAITING, Event.LIMIT): State.LATCHED,
    (State.RUNNING, Event.STOP): State.IDLE,
    (State.RUNNING, Event.DATA_LOST): State.WAITING,
    (State.RUNNING, Event.LIMIT): State.LATCHED,
    (State.LATCHED, Event.RESET): State.IDLE,
    (State.ESTOP, Event.RESET): State.IDLE,
} | {(state, Event.ESTOP): State.ESTOP for state in State}


class ModeMachine:
    """Holds the state and why it is what it is. `reason` is empty while IDLE or RUNNING."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.reason = ""

    @property
    def mode(self) -> Mode:
        """The mode shown to users."""
        return self.state.mode

    def handle(self, event: Event, reason: str = "") -> bool:
        """Applies an event; True where the state changed.

        A WAITING state takes the newest reason; a LATCHED or ESTOP one keeps the reason it was latched for.
        """
        target = TRANSITIONS.get((self.state, event), self.state)
        changed = target is not self.state
        if changed or (target is State.WAITING and event is Event.DATA_LOST):
            self.reason = reason if target.mode in (Mode.HOLD, Mode.ESTOP) else ""
        self.state = target
        return changed

    def refusal(self, event: Event) -> str:
        """Why a user's RUN or RESET would change nothing now, empty where it would be accepted."""
        if event is Event.RUN and self.state in (State.LATCHED, State.ESTOP):
            return f"The executor is in {self.mode.name} ({self.reason}); call ~/reset first."
        if event is Event.RESET and self.state not in (State.LATCHED, State.ESTOP):
            return f"There is nothing to reset: the executor is in {self.mode.name}."
        return ""
