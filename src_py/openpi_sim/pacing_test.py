import pytest

from openpi_sim.pacing import Pacer


def test_steps_are_spaced_by_the_period_over_the_factor():
    pacer = Pacer(2.0)
    assert pacer.delay(0.02, 100.0) == 0.0
    assert pacer.delay(0.02, 100.001) == pytest.approx(0.009)
    assert pacer.delay(0.02, 100.010) == pytest.approx(0.010)


def test_a_late_step_is_not_caught_up():
    pacer = Pacer(1.0)
    pacer.delay(0.02, 0.0)
    assert pacer.delay(0.02, 5.0) == 0.0
    assert pacer.delay(0.02, 5.0) == pytest.approx(0.02)


def test_no_limit_never_waits():
    assert Pacer(0.0).delay(0.02, 3.0) == 0.0


def test_the_factor_is_measured_over_the_window():
    pacer = Pacer(0.0, window=1.0)
    assert pacer.factor == 0.0
    for k in range(100):
        pacer.record(simulated=k * 0.02, wall=k * 0.1)
    assert pacer.factor == pytest.approx(0.2)
    for k in range(1, 101):
        pacer.record(simulated=1.98 + k * 0.02, wall=9.9 + k * 0.04)
    assert pacer.factor == pytest.approx(0.5)
