import pytest

from openpi_runtime.sync import Missing, Observation, ObservationSync, Stream

SECOND = 1_000_000_000


@pytest.fixture
def sync() -> ObservationSync:
    return ObservationSync(
        [
            Stream(name="top", max_age_ns=SECOND // 2),
            Stream(name="state", max_age_ns=SECOND // 5),
            Stream(name="low", max_age_ns=SECOND, required=False),
        ]
    )


def test_newest_at_or_before(sync: ObservationSync) -> None:
    for stamp in (100, 200, 300):
        sync.add("top", stamp, f"image {stamp}")
        sync.add("state", stamp, f"state {stamp}")
    sample = sync.sample(250)
    assert isinstance(sample, Observation)
    assert sample.values == {"top": "image 200", "state": "state 200"}
    assert sample.stamps_ns == {"top": 200, "state": 200}


def test_says_what_is_missing_by_name_and_age(sync: ObservationSync) -> None:
    sync.add("top", SECOND, "image")
    missing = sync.sample(2 * SECOND)
    assert isinstance(missing, Missing)
    assert str(missing) == "top is 1.00 s old (at most 0.5 s); state never came"


def test_optional_streams_are_left_out_when_old(sync: ObservationSync) -> None:
    for name in ("top", "state", "low"):
        sync.add(name, 1 if name == "low" else 2 * SECOND, name)
    sample = sync.sample(2 * SECOND)
    assert isinstance(sample, Observation)
    assert set(sample.values) == {"top", "state"}


def test_frozen_stamp_ages(sync: ObservationSync) -> None:
    for now in range(10):
        sync.add("state", SECOND + now * SECOND // 10, now)
        assert sync.add("top", SECOND, "again") == (now == 0)
    missing = sync.sample(SECOND + SECOND * 9 // 10)
    assert isinstance(missing, Missing)
    assert "top is 0.90 s old" in str(missing)
    assert sync.rejected["top"] == 9


def test_stamps_that_jump_back_or_ahead_are_refused(sync: ObservationSync) -> None:
    assert sync.add("top", SECOND, "a", now_ns=SECOND)
    assert not sync.add("top", SECOND // 2, "back", now_ns=SECOND)
    assert not sync.add("top", 3 * SECOND, "ahead", now_ns=SECOND)
    assert sync.ages_s(2 * SECOND) == {"top": 1.0, "state": None, "low": None}
    missing = sync.sample(2 * SECOND)
    assert isinstance(missing, Missing)
    assert "top cannot be used, its stamps are ahead of the clock" in str(missing)


def test_a_stamp_of_zero_is_no_time(sync: ObservationSync) -> None:
    assert not sync.add("top", 0, "a", now_ns=SECOND)
    missing = sync.sample(SECOND)
    assert isinstance(missing, Missing)
    assert missing.steady.startswith("top cannot be used, its stamps are zero: its driver must fill in header.stamp")


def test_clear_takes_any_stamp_again(sync: ObservationSync) -> None:
    sync.add("top", 10 * SECOND, "a")
    sync.clear()
    assert sync.add("top", SECOND, "b")


def test_memory_is_bounded() -> None:
    sync = ObservationSync([Stream(name="top", max_age_ns=SECOND)], keep=3)
    for stamp in range(100):
        sync.add("top", stamp, stamp)
    assert isinstance(sync.sample(96), Missing)
