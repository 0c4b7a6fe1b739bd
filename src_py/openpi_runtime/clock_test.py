from openpi_runtime.clock import ClockState, ClockWatch

MS = 1_000_000


def look(watch: ClockWatch, now_ms: int, wall_ms: int) -> ClockState:
    return watch.look(now_ms * MS, wall_ms * MS)


def test_classifies_what_the_clock_did() -> None:
    watch = ClockWatch(stop_ns=500 * MS, jump_ns=500 * MS)
    assert look(watch, 1000, 0) is ClockState.ADVANCED
    assert look(watch, 1020, 20) is ClockState.ADVANCED
    assert look(watch, 1020, 40) is ClockState.STANDING
    assert look(watch, 1000, 60) is ClockState.STANDING
    assert look(watch, 1020, 519) is ClockState.STANDING
    assert look(watch, 1020, 520) is ClockState.STOPPED
    assert look(watch, 1040, 540) is ClockState.ADVANCED
    assert look(watch, 1541, 560) is ClockState.JUMPED
    assert watch.jump_s == 0.501
    assert look(watch, 1040, 580) is ClockState.JUMPED
    assert look(watch, 1060, 600) is ClockState.ADVANCED


def test_slow_simulated_time_is_no_fault() -> None:
    watch = ClockWatch(stop_ns=500 * MS, jump_ns=500 * MS)
    assert {look(watch, 20 * i, 400 * i) for i in range(10)} == {ClockState.ADVANCED}
