import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from openpi_ros.worker import Worker


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=99)
    node = rclpy.create_node("worker_test", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_jobs_run_in_order_elsewhere_and_their_outcomes_come_back_here(node: Node) -> None:
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    worker = Worker(node, "test")
    outcomes: list[tuple[object, bool]] = []
    here = threading.get_ident()

    def done(outcome: object) -> None:
        outcomes.append((outcome, threading.get_ident() == here))

    for number in range(3):
        worker.submit(lambda n=number: (n, threading.get_ident() == here), done)
    worker.submit(lambda: 1 / 0, done)
    for _ in range(200):
        if len(outcomes) == 4:
            break
        executor.spin_once(timeout_sec=0.1)
    assert outcomes[:3] == [((n, False), True) for n in range(3)]
    assert isinstance(outcomes[3][0], ZeroDivisionError)
    worker.close()
    executor.shutdown()


def test_closing_runs_what_is_queued_and_leaves_no_thread(node: Node) -> None:
    worker = Worker(node, "closing")
    ran: list[int] = []
    worker.submit(lambda: ran.append(1))
    worker.close()
    assert ran == [1]
    assert "closing" not in {thread.name for thread in threading.enumerate()}
