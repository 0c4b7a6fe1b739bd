"""The ALOHA loop as a whole: the demo, live against offline inference, image delivery, namespaces."""

import json
import signal
import time

import numpy as np
import pytest
import rclpy
from openpi_msgs.msg import ActionChunk
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from trajectory_msgs.msg import JointTrajectory

from openpi.training.datasets import LeRobotDataset
from openpi_ros import convert_bag_to_lerobot, qos
from openpi_ros.commander import PolicyCommander
from openpi_ros.recording import load_record
from openpi_runtime.robots import load_robot

KEYS = {
    *("episodes", "successes", "control_hz", "tick_jitter_ms", "inference_ms"),
    *("starved_ticks", "clamped_ticks", "policy"),
}


def test_the_demo_transfers_the_cube_and_reports_it(start, tmp_path):
    demo = start("openpi_ros.demo", "--episodes", "1", "--out", str(tmp_path / "demo"))
    demo.wait(lambda: bool(demo.nodes()) or demo.process.poll() is not None, 60, "the stack starts")
    assert demo.wait_for_end(240) == 0, demo.output()[-3000:]
    report = json.loads((tmp_path / "demo/report.json").read_text())
    assert set(report) == KEYS
    assert (report["episodes"], report["successes"], report["policy"]) == (1, 1, "expert")
    assert (report["starved_ticks"], report["clamped_ticks"]) == (0, 0)
    assert report["control_hz"] == pytest.approx(50.0, abs=0.5)
    page = (tmp_path / "demo/report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "data:video/mp4;base64," in page
    assert 'src="http' not in page
    assert not demo.survivors()


def offline_actions(record: dict) -> np.ndarray:
    """The chunk of a recorded observation, computed here from the same noise."""
    policy = offline_policy()
    obs = {key: value for key, value in record["obs"].items() if key != "stamp_ns"}
    return policy.infer(obs, noise=record["result"]["noise"])["actions"]


def offline_policy():
    from openpi.policies import policy_config
    from openpi.training import config as training_config
    from openpi_ros.backends.local import gentle_statistics

    config = training_config.get_config("pi0_aloha_sim_small")
    stats = gentle_statistics(config, load_robot("aloha"))
    return policy_config.create_random_policy(config, seed=0, norm_stats=stats)


class Commands:
    """Every command to both arms, joined by arrival: [14] in the order of the action columns."""

    def __init__(self, commander: PolicyCommander) -> None:
        self.left: list[list[float]] = []
        self.right: list[list[float]] = []
        for side, kept in (("left", self.left), ("right", self.right)):
            commander.node.create_subscription(
                JointTrajectory,
                f"follower_{side}/joint_trajectory",
                lambda message, kept=kept: kept.append(list(message.points[0].positions)),
                qos.COMMAND,
            )

    def rows(self) -> np.ndarray:
        count = min(len(self.left), len(self.right))
        return np.hstack([self.left[:count], self.right[:count]])


def test_what_is_executed_equals_offline_inference(start, tmp_path, domain, monkeypatch):
    """Camera message, transforms, model, chunk message, executor, command: no number changes on the way."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    records = tmp_path / "records"
    simulated = ("-p", "use_sim_time:=true")
    start("openpi_ros.aloha_sim_node", "--ros-args", "-p", "camera_hz:=5.0")
    local = ("-p", "backend:=local", "-p", "config:=pi0_aloha_sim_small", "-p", f"record:={records}")
    policy = start("openpi_ros.openpi_policy_node", "--ros-args", *simulated, *local)
    start("openpi_ros.chunk_executor_node", "--ros-args", *simulated, "-p", "controller:=joint_trajectory")
    policy.wait_for_text("Ready: backend local", 120)
    with PolicyCommander(use_sim_time=True) as commander:
        commands = Commands(commander)
        commander.bring_up()
        commander.start()
        commander.wait_for(lambda: len(list(records.glob("*.npz"))) >= 5, 180.0, "five chunks")
        commander.stop()
    saved = [load_record(path) for path in sorted(records.glob("*.npz"))[:-1]]
    for record in (saved[0], saved[-1]):
        np.testing.assert_allclose(offline_actions(record), record["result"]["actions"], atol=1e-6)
    predicted = np.concatenate([record["result"]["actions"] for record in saved])
    predicted = np.concatenate([predicted, load_record(sorted(records.glob("*.npz"))[-1])["result"]["actions"]])
    late = commands.rows()[-40:]  # the ramp from the measured position is over
    assert len(late) == 40
    nearest = np.abs(late[:, None] - predicted[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-6


def test_images_arrive(start, domain):
    """Over 99 % of what the simulator publishes, three cameras of 640 by 480."""
    start("openpi_ros.aloha_sim_node")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("counter", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stamps: dict[str, list[int]] = {}
    for camera in load_robot("aloha").cameras[:3]:
        kept = stamps.setdefault(camera.name, [])
        node.create_subscription(
            Image,
            camera.topic,
            lambda m, kept=kept: kept.append(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec),
            qos.SENSOR,
        )
    end = time.monotonic() + 90
    while time.monotonic() < end and min(len(kept) for kept in stamps.values()) < 100:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    for name, kept in stamps.items():
        published = (kept[-1] - kept[0]) // 40_000_000 + 1  # 25 a simulated second
        assert len(kept) >= 100, f"{name}: only {len(kept)} images came"
        assert len(kept) / published > 0.99, f"{name}: {len(kept)} of {published}"


def test_a_namespace_moves_the_whole_robot_and_is_recorded(start, domain, monkeypatch, tmp_path):
    from rosbags.highlevel import AnyReader

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    bag = tmp_path / "bag"
    stack = start("openpi_bringup.up", "aloha", "policy:=expert", "namespace:=/lab/robot1", f"record:={bag}")
    stack.wait_for_text("Ready: backend expert", 90)
    with PolicyCommander("/lab/robot1", use_sim_time=True) as commander:
        commander.bring_up()
        commander.start()
        commander.wait_for(lambda: commander.state is not None and commander.state.chunk_id >= 4, 180.0, "fourth chunk")
        commander.stop()
        names = {name for name, _ in commander.node.get_topic_names_and_types()}
    outside = {name for name in names if not name.startswith("/lab/robot1/")}
    assert outside <= {"/clock", "/diagnostics", "/parameter_events", "/rosout"}
    stack.process.send_signal(signal.SIGINT)
    stack.wait_for_end()
    with AnyReader([bag]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        chunks = [c for c in reader.connections if c.topic == "/lab/robot1/openpi_policy_node/action_chunk"]
        first = next(reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(chunks))
    assert counts["/lab/robot1/cam_high/image_raw"] > 3
    assert counts["/lab/robot1/follower_left/joint_trajectory"] > 10
    assert (first.horizon, first.dim, len(first.data)) == (50, 14, 700)
    data = tmp_path / "data"
    assert convert_bag_to_lerobot.main(convert_bag_to_lerobot.Args(bags=(bag,), output=data)) == 0
    steps = LeRobotDataset(data)
    assert len(steps) > 10
    assert steps[0]["observation.images.cam_high"].shape == (3, 480, 640)
    assert np.abs(np.asarray(steps[0]["action"]) - np.asarray(steps[0]["observation.state"])).max() < 0.5  # same units


def test_the_remote_backend_reconnects_to_a_server_that_comes_late(start, domain, monkeypatch, unused_tcp_port):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    stack = start("openpi_bringup.up", "aloha", "policy:=remote", f"port:={unused_tcp_port}")
    stack.wait_for_text("Ready: backend remote", 90)
    with PolicyCommander(use_sim_time=True) as commander:
        commander.bring_up()
        commander.start()
        stack.wait_for_text(f"policy server 127.0.0.1:{unused_tcp_port}", 180)
        serve = ("serve", "--config", "pi0_aloha_sim_small", "--random-weights", "--host", "127.0.0.1", "--batch", "1")
        start("openpi", *serve, "--port", str(unused_tcp_port))
        stack.wait_for_text("Connected to policy server", 240)
        chunks: list[ActionChunk] = []
        commander.node.create_subscription(ActionChunk, "openpi_policy_node/action_chunk", chunks.append, qos.CHUNK)
        commander.wait_for(lambda: len(chunks) >= 2, 180.0, "two chunks of the server")
