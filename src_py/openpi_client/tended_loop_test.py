import threading
import time

import pytest

from openpi_client import tended_loop
from openpi_client.tended_loop import TendedLoop


@pytest.fixture
def tended():
    loop, ended = TendedLoop(0.001), threading.Event()
    thread = threading.Thread(target=loop.tend, args=(ended,))
    thread.start()
    yield loop
    ended.set()
    thread.join(5)
    loop.loop.close()


def ask(tended: TendedLoop) -> threading.Event:
    done = threading.Event()
    tended.loop.call_soon_threadsafe(done.set)
    return done


def test_the_loop_turns_while_nobody_runs_it(tended):
    for _ in range(3):
        assert ask(tended).wait(5)


def test_nothing_is_done_in_somebody_elses_turn(tended, monkeypatch):
    monkeypatch.setattr(tended_loop, "PATIENCE", 5)
    with tended.turn:
        done = ask(tended)
        time.sleep(0.05)  # long enough for the keeper to go to sleep
        assert not done.is_set()
        tended.turn_once()
        assert done.is_set()
    assert ask(tended).wait(5)
