"""A process that outlives the executor for a moment, to stop what goes on with the last velocity.

The executor says in every tick, over a pipe, whether the robot moves. Where it falls silent while the robot moves, or
dies, zeros are published on its topics.

`python -m openpi_ros.velocity_guard SILENCE_S TOPIC SIZE [TOPIC SIZE ...]`, with the pipe as standard input.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

import rclpy
from std_msgs.msg import Float64MultiArray

from openpi_ros import qos

MOVES, STANDS = b"m", b"s"
READY = "ready"
NAME = "velocity_guard"  # of its node, with the process's id behind it
_REPEATS, _PAUSE_S = 25, 0.02  # of the zeros: the last command may still be on its way, or a controller not yet found


def watch(pipe: int, silence_s: float, stop: Callable[[], None]) -> None:
    """Returns when the pipe is closed. Calls `stop`, some times, where that or silence comes while the robot moves."""
    moves, repeats = False, 0
    while True:
        wait_s = _PAUSE_S if repeats else silence_s if moves else None
        heard, _, _ = select.select([pipe], [], [], wait_s)
        if not heard:
            stop()
            moves, repeats = False, repeats - 1 if repeats else _REPEATS
            continue
        said = os.read(pipe, 4096)
        if not said:
            break
        moves, repeats = said[-1:] == MOVES, 0
    for _ in range(_REPEATS if moves or repeats else 0):
        stop()
        time.sleep(_PAUSE_S)


def main(args: Sequence[str] | None = None) -> int:
    """The process."""
    silence, *pairs = args or sys.argv[1:]
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the executor, which closes the pipe when it has stopped
    rclpy.init(args=[])
    node = rclpy.create_node(f"{NAME}_{os.getpid()}")
    standing = [
        (node.create_publisher(Float64MultiArray, topic, qos.COMMAND), Float64MultiArray(data=[0.0] * int(size)))
        for topic, size in zip(pairs[::2], pairs[1::2], strict=True)
    ]

    def stop() -> None:
        for publisher, zeros in standing:
            publisher.publish(zeros)

    print(READY, flush=True)
    watch(sys.stdin.fileno(), float(silence), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
