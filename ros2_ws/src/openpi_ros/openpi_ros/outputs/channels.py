"""Where outputs publish: on a node's topics, or in a dry run on their shadows."""

from __future__ import annotations

import contextlib
from typing import Any

from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.publisher import Publisher

from openpi_ros import qos

SHADOW = "dry_run/"


class Channels:
    """Makes publishers of commands. In a dry run every topic is below `dry_run/`, and there are no actions.

    Attributes:
        names: the topics and actions commands go to, with the node's namespace and remaps.
        resources: what is closed with the channels: all that is no publisher of the node's.
    """

    def __init__(self, node: Node, *, dry_run: bool) -> None:
        self.node = node
        self.dry_run = dry_run
        self.names: list[str] = []
        self.resources = contextlib.ExitStack()

    @property
    def clock(self) -> Clock:
        """The node's clock."""
        return self.node.get_clock()

    def publisher(self, kind: type[Any], topic: str) -> Publisher:
        """A publisher of commands."""
        publisher = self.node.create_publisher(kind, SHADOW * self.dry_run + topic, qos.COMMAND)
        self.names.append(publisher.topic_name)
        return publisher

    def close(self) -> None:
        """Releases the resources."""
        self.resources.close()
