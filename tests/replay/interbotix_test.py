"""ALOHA on the Interbotix drivers: `openpi-up aloha sim:=false`, its messages, both gripper calibrations."""

import json
from pathlib import Path

import pytest

from openpi_ros.commander import PolicyCommander
from openpi_runtime import paths

DRIVER = str(Path(__file__).with_name("interbotix_driver.py"))
START = {"left": [0.1, -0.9, 1.1, 0.2, -0.3, 0.4], "right": [-0.1, -0.8, 1.0, -0.2, -0.5, 0.6]}
# The field's numbers: finger position closed and open [m], motor angle closed and open [rad].
CALIBRATIONS = {"left": (0.01844, 0.05800, -0.6213, 1.4910), "right": (0.0440, 0.0579, 0.6197, 1.6214)}


OPENING = 0.25  # of both grippers


def one_of_each(folder: Path) -> Path:
    """The ALOHA description with the other calibration chosen for the right arm, as a user would."""
    text = (paths.config_dir() / "robots/aloha.yaml").read_text()
    left, chosen, right = text.rpartition("calibration: trossen")
    assert chosen
    path = folder / "my_aloha.yaml"
    path.write_text(f"{left}calibration: interbotix{right}")
    return path


def commands(output: str) -> dict[tuple[str, str], list]:
    """What the drivers were commanded, by side and the message's name."""
    found: dict[tuple[str, str], list] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            command = json.loads(line)
            found.setdefault((command["side"], command["name"]), []).append(command["cmd"])
    return found


@pytest.mark.usefixtures("driver_packages")
def test_both_arms_and_grippers_are_commanded_as_the_drivers_take_it(start, domain, monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    driver = start(DRIVER, *(str(number) for numbers in CALIBRATIONS.values() for number in numbers))
    stack = start("openpi_bringup.up", "aloha", "sim:=false", "policy:=hold", f"robot:={one_of_each(tmp_path)}")
    stack.wait_for_text("Commands move the REAL robot 'aloha'", 60)
    stack.wait_for_text("Ready: backend hold", 60)
    assert "/follower_left/commands/joint_group" in stack.output()
    assert "controller 'interbotix'" in stack.output()
    with PolicyCommander() as commander:
        commander.bring_up()
        assert not commands(driver.output())  # nothing moves before it is told to
        commander.start()
        driver.wait(lambda: len(commands(driver.output()).get(("right", "gripper"), [])) > 50, 30, "50 commands")
        commander.stop()
    given = commands(driver.output())
    assert set(given) == {(side, name) for side in START for name in ("arm", "gripper")}
    for side, place in START.items():
        assert all(command == pytest.approx(place, abs=1e-4) for command in given[side, "arm"])
        _, _, closed, opened = CALIBRATIONS[side]
        angles = given[side, "gripper"]
        assert angles == pytest.approx([closed + OPENING * (opened - closed)] * len(angles), abs=1e-4)
