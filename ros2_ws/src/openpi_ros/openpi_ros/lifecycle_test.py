"""The base class of all nodes: what a transition raises, what is undone, what parameters may do."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

import rclpy
from rclpy.parameter import Parameter
from std_msgs.msg import Bool

from openpi_ros import lifecycle

SEED = Parameter("seed", value=7)


class Probe(lifecycle.ManagedNode):
    """A node that does as it is told, with the simulator's parameters."""

    name = "aloha_sim_node"
    trouble: Exception | None = None

    def set_up(self) -> None:
        self.log: list[str] = []
        self.resources.callback(lambda: self.log.append("undone"))
        self.create_publisher(Bool, "probe", 1)
        self.create_timer(1.0, lambda: None)
        if self.trouble:
            raise self.trouble

    def set_active(self, active: bool) -> None:
        self.log.append("active" if active else "inactive")

    def on_live_parameters(self, changed: dict[str, Any]) -> None:
        self.log.append(f"seed {changed['seed']}")


@pytest.fixture
def probe() -> Iterator[Probe]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=98)
    node = Probe(context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_whole_life_leaves_nothing_behind(probe: Probe) -> None:
    before = set(probe._entities())
    assert lifecycle.bring_up(probe)
    assert probe.params["width"] == 640
    assert len(probe._entities()) == len(before) + 2
    probe.trigger_shutdown()
    assert probe.log == ["active", "inactive", "undone"]
    assert set(probe._entities()) == before


def test_a_failed_configure_is_told_undone_and_can_be_repeated(probe: Probe) -> None:
    before = set(probe._entities())
    probe.trouble = ValueError("The camera is upside down.")
    assert not lifecycle.bring_up(probe)
    assert probe.failure == "Could not configure: The camera is upside down."
    assert probe.log == ["undone"]
    assert set(probe._entities()) == before
    probe.trouble = None
    assert lifecycle.bring_up(probe)


def test_an_error_of_one_word_says_its_kind(probe: Probe) -> None:
    probe.trouble = KeyError("joints")
    assert not lifecycle.bring_up(probe)
    assert probe.failure == "Could not configure: KeyError joints"


def test_live_parameters_change_while_configured_others_do_not(probe: Probe) -> None:
    assert lifecycle.bring_up(probe)
    assert probe.set_parameters([SEED])[0].successful
    assert probe.params["seed"] == 7
    assert probe.log[-1] == "seed 7"
    refused = probe.set_parameters([Parameter("width", value=320)])[0]
    assert not refused.successful
    assert "'width' is read when the node is configured" in refused.reason
    wrong = probe.set_parameters([Parameter("seed", value="seven")])[0]
    assert "Parameter 'seed' is 'seven', but must be an int" in wrong.reason


def test_giving_up_is_remembered_with_its_reason(probe: Probe) -> None:
    probe.give_up("The simulation failed.")
    assert probe.finished
    assert probe.failure == "The simulation failed."
