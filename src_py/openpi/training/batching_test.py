"""The order of samples: pinned by the seed, resumed anywhere, the same however many workers and processes."""

import itertools
import os
from typing import Any, SupportsIndex

import numpy as np
import pytest

from openpi.training.batching import BatchPlan, Share, batches, numeric, stack
from openpi.training.datasets.errors import BadSampleError


class Numbers:
    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        if int(index) in self.bad:
            raise BadSampleError("numbers", 0, int(index), "it is bad")
        return {"x": np.array([int(index)], np.float32), "nested": {"pid": np.array(os.getpid())}}


def take(count: int, *args: Any, **kwargs: Any) -> list[list[int]]:
    stream = batches(*args, **kwargs)
    return [batch["data"]["x"][:, 0].astype(int).tolist() for batch in itertools.islice(stream, count)]


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def test_each_epoch_holds_every_sample_once_in_a_new_order() -> None:
    plan = BatchPlan(12, 4, shuffle=True, seed=5)
    order = take(6, Numbers(12), plan)
    first, second = flat(order[:3]), flat(order[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert first != list(range(12))


def test_the_seed_pins_the_order() -> None:
    def order(seed: int) -> list[list[int]]:
        return take(4, Numbers(20), BatchPlan(20, 5, shuffle=True, seed=seed))

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("start", [1, 3, 4, 7])
def test_resume_in_the_middle_of_an_epoch_is_exact(start: int) -> None:
    plan = BatchPlan(11, 3, shuffle=True, seed=2)
    assert take(5, Numbers(11), plan, start=start) == take(start + 5, Numbers(11), plan)[start:]


def test_workers_change_nothing_but_the_process() -> None:
    plan = BatchPlan(16, 4, shuffle=True, seed=3)
    stream = batches(Numbers(16), plan, num_workers=2, start=1)
    loaded = [batch["data"] for batch in itertools.islice(stream, 5)]
    assert [data["x"][:, 0].astype(int).tolist() for data in loaded] == take(5, Numbers(16), plan, start=1)
    processes = {int(pid) for data in loaded for pid in data["nested"]["pid"]}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_processes_share_each_global_batch() -> None:
    plan = BatchPlan(24, 6, shuffle=True, seed=1)
    whole = take(4, Numbers(24), plan)
    parts = [take(4, Numbers(24), plan, share=Share(index, 3)) for index in range(3)]
    assert [flat([part[k] for part in parts]) for k in range(4)] == whole


def test_own_order_of_samples() -> None:
    assert take(3, Numbers(10), BatchPlan(4, 2, order=[9, 0, 4, 7])) == [[9, 0], [4, 7], [9, 0]]


def test_incomplete_batch_is_left_out_of_its_epoch() -> None:
    assert take(4, Numbers(5), BatchPlan(5, 2)) == [[0, 1], [2, 3], [0, 1], [2, 3]]


def test_bad_sample_stops_or_is_replaced_and_counted() -> None:
    dataset, plan = Numbers(6, bad=(2, 3)), BatchPlan(6, 3)
    with pytest.raises(BadSampleError, match="'numbers': episode 0, frame 2: it is bad"):
        take(1, dataset, plan)
    first, second = itertools.islice(batches(dataset, plan, on_bad="skip"), 2)
    assert first["data"]["x"][:, 0].tolist() == [0, 1, 4]
    assert second["data"]["x"][:, 0].tolist() == [4, 4, 5]
    assert (first["skipped"], second["skipped"]) == (2, 1)


def test_dataset_without_a_good_sample_is_an_error() -> None:
    with pytest.raises(BadSampleError):
        take(1, Numbers(3, bad=(0, 1, 2)), BatchPlan(3, 1), on_bad="skip")


def test_dataset_smaller_than_a_batch() -> None:
    with pytest.raises(ValueError, match="has 3 samples, less than one batch of 4"):
        BatchPlan(3, 4)


def test_text_is_stacked_but_is_not_numeric() -> None:
    samples = [{"prompt": "a", "x": {"y": np.ones(2)}}, {"prompt": "bc", "x": {"y": np.zeros(2)}}]
    batch = stack(samples)
    assert batch["prompt"].tolist() == ["a", "bc"]
    assert set(numeric(batch)) == {"x"}
    np.testing.assert_array_equal(numeric(batch)["x"]["y"], [[1, 1], [0, 0]])
