"""An event loop without a thread of its own: whoever has something to do with it runs it.

Handing a request to a loop's thread and its answer back wakes a sleeping thread twice, 0.1 to 0.2 ms each time. Here
the thread that asks runs the loop itself, and while nobody does, another one lets it turn once in a while.
"""

import asyncio
import threading

PATIENCE = 6  # visits in vain, each after twice the time, before the keeper sleeps until the loop is free again


class TendedLoop:
    """An event loop, and the lock `turn` that a thread holds while it runs it."""

    def __init__(self, every_s: float) -> None:
        """`every_s`: how often `tend` looks after it."""
        self.loop = asyncio.new_event_loop()
        self.turn = threading.Lock()
        self._every_s = every_s

    def tend(self, ended: threading.Event) -> None:
        """Until `ended`, let the loop turn regularly while nobody runs it: it answers whatever has come in."""
        vain = 0
        while not ended.wait(self._every_s * 2**vain):  # a visit costs who runs the loop a switch of threads
            if not self.turn.acquire(blocking=vain == PATIENCE):
                vain += 1
                continue
            vain = 0
            try:
                if not ended.is_set():  # after which the loop may be closed
                    self.turn_once()
            finally:
                self.turn.release()

    def turn_once(self) -> None:
        """Do what is due, and wait for nothing. The caller holds `turn`."""
        self.loop.stop()  # taken note of at the end of the next round
        self.loop.run_forever()
