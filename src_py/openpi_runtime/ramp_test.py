import numpy as np
import pytest

from openpi_runtime.ramp import Ramp


def run(ramp: Ramp, start: float, targets: list[float]) -> list[float]:
    last, path = np.array([start]), []
    for target in targets:
        last = ramp.step(last, np.array([target]))
        path.append(float(last[0]))
    return path


def made(columns: int = 1, top: float = np.inf) -> Ramp:
    return Ramp(np.ones(columns), np.full(columns, top), 0.1)


def test_is_nothing_until_started() -> None:
    assert run(made(), 0.0, [5.0]) == [5.0]


def test_approaches_at_its_speed_then_lets_go() -> None:
    ramp = made()
    ramp.start()
    assert run(ramp, 0.0, [0.35] * 5) == pytest.approx([0.1, 0.2, 0.3, 0.35, 0.35])
    assert not ramp.active
    assert run(ramp, 0.35, [3.0]) == [3.0]


def test_catches_a_target_that_moves_faster_than_the_ramp() -> None:
    ramp = made()
    ramp.start()
    path = run(ramp, 0.0, [0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    assert path == pytest.approx([0.1, 0.24, 0.42, 0.64, 0.9, 1.2])
    assert not ramp.active


def test_all_columns_arrive_before_it_ends() -> None:
    ramp = made(2)
    ramp.start()
    assert ramp.step(np.zeros(2), np.array([0.05, 0.5])) == pytest.approx([0.05, 0.1])
    assert ramp.active


def test_one_who_moves_already_goes_on_and_catches_up() -> None:
    ramp = made()
    run(ramp, 0.0, [0.0, 0.2])
    ramp.catch_up()
    assert run(ramp, 0.2, [0.6, 0.8, 1.0]) == pytest.approx([0.6, 0.8, 1.0])


def test_no_target_makes_it_faster_than_its_top_speed() -> None:
    ramp = made(top=3.0)
    run(ramp, 0.0, [0.0])
    ramp.catch_up()
    assert run(ramp, 0.0, [4.0, 4.0, 8.0]) == pytest.approx([0.3, 0.4, 0.7])


def test_a_ramp_that_has_just_begun_stays_slow_when_it_is_late() -> None:
    ramp = made()
    ramp.start()
    ramp.step(np.zeros(1), np.array([0.5]))
    ramp.catch_up()
    assert run(ramp, 0.1, [1.0]) == pytest.approx([0.3])  # 0.1, and a fifth of the target's own 0.5
