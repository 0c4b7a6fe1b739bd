from typing import Any

import numpy as np
import pytest

from openpi_ros.bags.run import RecordedRun


def run(bag: Any, **options: Any) -> RecordedRun:
    return RecordedRun(bag.write(), bag.robot, **options)


def test_state_and_images_are_the_newest_at_or_before_each_time(bag: Any) -> None:
    recorded = run(bag, fps=10)
    (episode,) = recorded.episodes
    frames = list(recorded.frames(episode))
    assert len(frames) == 20  # the last has no state a period later
    assert frames[3].state == pytest.approx([*[0.03] * 7, 0.75])  # 0.25 open; 1 is closed
    assert frames[3].images["exterior"].shape == (16, 16, 3)
    assert frames[3].images["wrist"][0, 0].tolist() == [15, 0, 0]  # red first, as policies see it


def test_between_two_images_the_older_is_seen(bag: Any) -> None:
    bag.entries = [e for e in bag.entries if e[1] != "/wrist/image_raw" or round(e[0] * 50) % 8 == 0]
    recorded = run(bag, fps=10)
    seen = [frame.images["wrist"][0, 0, 0] for frame in recorded.frames(recorded.episodes[0])]
    assert seen[:5] == [0, 0, 8, 8, 16]


def test_without_commands_the_action_leads_to_the_next_state(bag: Any) -> None:
    recorded = run(bag, fps=10)
    velocity, gripper = recorded.actions[3, :7], recorded.actions[3, 7]
    assert velocity == pytest.approx([0.01 / 0.2] * 7)  # 0.1 rad/s for 0.1 s, as parts of 0.2 rad
    assert gripper == pytest.approx(0.75)


def test_the_action_is_the_first_command_at_or_after(bag: Any) -> None:
    for i in range(20):
        bag.command(0.05 + i / 10, 1.0 + i, i / 20)
    recorded = run(bag, fps=10)
    assert recorded.actions[3, 0] == pytest.approx((4.0 - 0.03) / 0.2)  # the command at 0.35 s, from 0.03 rad
    assert recorded.actions[3, 7] == pytest.approx(3 / 20)


def test_what_is_missing_cuts_the_bag(bag: Any) -> None:
    bag.entries = [e for e in bag.entries if e[1] != "/joint_states" or not 0.8 < e[0] < 1.2]
    recorded = run(bag, fps=10)
    assert [(e.start, e.stop) for e in recorded.episodes] == [(0, 10), (12, 20)]  # 0.2 s old is taken still


def test_a_pause_between_commands_cuts_the_bag(bag: Any) -> None:
    for i in [*range(6), *range(15, 20)]:
        bag.command(i / 10, 0.1, 0.0)
    recorded = run(bag, fps=10)
    assert [(e.start, e.stop) for e in recorded.episodes] == [(0, 6), (10, 20)]


def test_a_namespace_is_found(bag: Any) -> None:
    bag.entries = [(at_s, f"/lab/one{topic}", message) for at_s, topic, message in bag.entries]
    assert len(run(bag, namespace="/lab/one").episodes) == 1


def test_what_was_never_recorded_is_named(bag: Any) -> None:
    bag.entries = [e for e in bag.entries if e[1] != "/wrist/image_raw"]
    with pytest.raises(ValueError, match=r"has no messages on /wrist/image_raw\."):
        run(bag)


def test_numbers_are_finite_in_every_episode(bag: Any) -> None:
    recorded = run(bag)
    for episode in recorded.episodes:
        assert np.isfinite(recorded.actions[episode.start : episode.stop]).all()
