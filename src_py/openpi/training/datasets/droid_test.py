"""Choosing, chunking, mixing and shuffling of DROID episodes, from episodes made here."""

import dataclasses
import io
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from openpi.training.batching import Share
from openpi.training.datasets.droid import DroidRldsDataset, shuffled
from openpi.training.datasets.errors import BadSampleError, DatasetError
from openpi.training.datasets.testing import episode


@dataclasses.dataclass(frozen=True)
class Part:
    name: str = "droid"
    version: str = "1.0.1"
    weight: float = 1.0
    filter_dict_path: str | None = None


def read(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
    if part.name == "empty":
        return
    base = 0 if part.name == "droid" else 100
    yield episode(base + 1, 3)
    yield episode(base + 2, 4, success=False)
    yield episode(base + 3, 5)


def dataset(*parts: Part, batch_size: int = 2, shuffle: bool = False, space: str = "joint_position") -> Any:
    return DroidRldsDataset(
        "data",
        batch_size,
        datasets=parts or (Part(),),
        action_chunk_size=4,
        action_space=space,
        shuffle=shuffle,
        shuffle_buffer_size=6,
        read=read,
    )


def test_one_pass_has_the_successful_episodes_in_chunks() -> None:
    loaded = list(dataset())
    actions = np.concatenate([batch["actions"] for batch in loaded])
    assert actions.shape == (8, 4, 8)
    np.testing.assert_allclose(actions[1, :, 0], [1.01, 1.02, 1.02, 1.02], rtol=1e-6)
    np.testing.assert_array_equal(actions[0, :, 7], [0, 1, 0, 0])
    assert loaded[0]["prompt"].tolist() == ["task 1", "task 1"]
    observation = loaded[0]["observation"]
    assert observation["image"].shape == (2, 18, 32, 3)
    assert abs(observation["wrist_image"].mean() - 200) < 2
    assert min(abs(observation["image"].mean() - level) for level in (50, 100)) < 2
    np.testing.assert_array_equal(observation["joint_position"][1], np.full(7, 1))


def test_velocities_where_asked() -> None:
    assert next(iter(dataset(space="joint_velocity")))["actions"][0, 0, :7].tolist() == [-1.0] * 7
    with pytest.raises(ValueError, match="action_space 'cartesian' is not recorded"):
        next(iter(dataset(space="cartesian")))


def test_filter_keeps_the_steps_that_move(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"r--success/3": [[1, 3], [4, 9]]}))
    kept = dataset(Part(filter_dict_path=str(path)), batch_size=1)
    assert [round(float(batch["actions"][0, 0, 0] - 3) * 100) for batch in kept] == [1, 2, 4]


def test_mixture_follows_the_weights_and_is_pinned_by_the_seed() -> None:
    def draw() -> list[float]:
        mixed = dataset(Part(weight=3.0), Part(name="other", weight=1.0), batch_size=1, shuffle=True)
        return [float(batch["actions"][0, 0, 0]) for batch in itertools.islice(mixed, 200)]

    first = draw()
    assert first == draw()
    assert 0.65 < np.mean(np.array(first) < 100) < 0.85
    assert first[:20] != sorted(first[:20])


def test_filters_that_keep_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"No step of empty 1\.0\.1 in data is kept"):
        next(iter(dataset(Part(name="empty"), shuffle=True)))


def test_shuffling_loses_nothing() -> None:
    mixed = list(shuffled(iter(range(50)), 8, np.random.default_rng(0)))
    assert sorted(mixed) == list(range(50))
    assert mixed != list(range(50))


def written_by_tfds(data_dir: pathlib.Path, episodes: list[dict[str, Any]], shards: int = 1) -> None:
    """The episodes as a TFDS dataset droid 1.0.1 on disk."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(18, 32, 3), encoding_format="jpeg")
    vector, one = tfds.features.Tensor(shape=(7,), dtype=np.float64), tfds.features.Tensor(shape=(1,), dtype=np.float64)
    step = {
        "action_dict": {"joint_position": vector, "joint_velocity": vector, "gripper_position": one},
        "observation": {
            **dict.fromkeys(("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"), image),
            "joint_position": vector,
            "gripper_position": one,
        },
        **dict.fromkeys(("language_instruction", "language_instruction_2"), tfds.features.Text()),
    }
    metadata = dict.fromkeys(("recording_folderpath", "file_path"), tfds.features.Text())
    features = {"steps": tfds.features.Dataset(step), "episode_metadata": metadata}

    class Droid(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "droid"
        VERSION = tfds.core.Version("1.0.1")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            return enumerate(episodes)

    config = tfds.download.DownloadConfig(num_shards=shards)
    Droid(data_dir=str(data_dir)).download_and_prepare(download_config=config)


def as_tfds_takes_them(episode: dict[str, Any]) -> dict[str, Any]:
    """Images as files to be copied, not as bytes that stand for themselves."""
    steps = [
        step
        | {
            "observation": {
                key: io.BytesIO(value) if isinstance(value, bytes) else value
                for key, value in step["observation"].items()
            }
        }
        for step in episode["steps"]
    ]
    return episode | {"steps": steps}


@pytest.mark.parametrize("space", ["joint_position", "joint_velocity"])
def test_a_dataset_that_tfds_wrote(tmp_path: pathlib.Path, space: str) -> None:
    pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    written_by_tfds(tmp_path, [as_tfds_takes_them(one) for one in read("", Part(), None)])
    arguments: dict[str, Any] = {"datasets": (Part(),), "action_chunk_size": 4, "action_space": space, "shuffle": False}
    stored = list(DroidRldsDataset(str(tmp_path), 2, **arguments))
    ours = list(DroidRldsDataset(str(tmp_path), 2, **arguments, read=read))
    assert len(stored) == len(ours) == 4
    for batch, expected in zip(stored, ours, strict=True):
        np.testing.assert_allclose(batch["actions"], expected["actions"], rtol=1e-6)
        assert batch["prompt"].tolist() == expected["prompt"].tolist()
        assert batch["observation"]["wrist_image"].shape == (2, 18, 32, 3)
        np.testing.assert_array_equal(batch["observation"]["joint_position"], expected["observation"]["joint_position"])


def test_without_tfds_the_error_says_what_to_install() -> None:
    try:
        import tensorflow_datasets  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="pip install tensorflow-cpu tensorflow-datasets"):
            DroidRldsDataset("d", 1, datasets=(Part(),), action_chunk_size=1, action_space="joint_position")
    else:
        pytest.skip("tensorflow-datasets is installed")


def stream(start: int = 0, share: Share | None = None, count: int = 12, **settings: Any) -> list[dict[str, Any]]:
    mixed = DroidRldsDataset(
        "data",
        4,
        datasets=(Part(weight=2.0), Part(name="other")),
        action_chunk_size=4,
        action_space="joint_position",
        shuffle_buffer_size=6,
        read=read,
        start_batch=start,
        share=share,
        **settings,
    )
    return list(itertools.islice(mixed, count))


def targets(batches: list[dict[str, Any]]) -> list[list[float]]:
    return [batch["actions"][:, 0, 0].tolist() for batch in batches]


def test_a_stream_that_begins_later_goes_on_exactly() -> None:
    whole = stream()
    assert targets(stream(start=7, count=5)) == targets(whole[7:])
    assert [b["prompt"].tolist() for b in stream(start=7, count=5)] == [b["prompt"].tolist() for b in whole[7:]]
    assert targets(stream(seed=1)) != targets(whole)


def test_only_a_shuffled_stream_can_begin_later() -> None:
    with pytest.raises(ValueError, match="shuffled RLDS stream can begin at a later batch"):
        stream(start=1, shuffle=False)


def test_processes_share_each_batch_of_a_stream() -> None:
    parts = [stream(share=Share(index, 2), start=2, count=3) for index in range(2)]
    joined = [first + second for first, second in zip(*map(targets, parts), strict=True)]
    assert joined == targets(stream(start=2, count=3))


def test_every_pass_over_the_files_has_an_order_of_its_own_pinned_by_the_seed() -> None:
    seeds: list[int | None] = []

    def noting(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
        seeds.append(seed)
        return read(data_dir, part, seed)

    def noted(**settings: Any) -> list[int | None]:
        seeds.clear()
        common = {"datasets": (Part(),), "action_chunk_size": 1, "action_space": "joint_position", "read": noting}
        list(itertools.islice(DroidRldsDataset("data", 4, shuffle_buffer_size=1, **common, **settings), 10))
        return list(seeds)

    first = noted(seed=3)
    assert len(set(first)) == len(first) > 3
    assert first == noted(seed=3)
    assert noted(shuffle=False) == [None]


def test_one_shuffled_pass_draws_every_sample_once() -> None:
    common = {"action_chunk_size": 1, "action_space": "joint_position", "shuffle_buffer_size": 4, "read": read}
    once = DroidRldsDataset("data", 4, datasets=(Part(), Part(name="other")), repeat=False, **common)
    drawn = [(sample["episode"], sample["frame"]) for sample in once.samples()]
    assert len(set(drawn)) == len(drawn) == 16
    assert drawn != sorted(drawn)


def test_samples_without_images_have_stamps_in_their_place() -> None:
    common = {"action_chunk_size": 1, "action_space": "joint_position", "shuffle": False, "read": read}
    sample = next(DroidRldsDataset("data", 4, datasets=(Part(),), decode_images=False, **common).samples())
    assert not sample["observation"]["image"].any()
    assert (sample["dataset"], sample["episode"], sample["frame"]) == ("droid", "r--success/1", 0)


def test_files_that_cannot_be_read_name_the_dataset() -> None:
    def broken(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
        yield episode(1, 2)
        raise OSError("truncated record")

    common = {"action_chunk_size": 1, "action_space": "joint_position", "shuffle": False, "read": broken}
    with pytest.raises(DatasetError, match=r"'droid': version 1\.0\.1 in data cannot be read: truncated record"):
        list(DroidRldsDataset("data", 1, datasets=(Part(),), **common))


def test_an_episode_that_lacks_its_name_goes_by_its_number() -> None:
    def nameless(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
        yield episode(1, 2)
        yield {"steps": []}

    common = {"action_chunk_size": 1, "action_space": "joint_position", "shuffle": False, "read": nameless}
    with pytest.raises(BadSampleError, match="'droid': episode 1, all frames: it cannot be read: 'episode_metadata'"):
        list(DroidRldsDataset("data", 1, datasets=(Part(),), **common))


def test_a_shuffled_stream_of_tfds_goes_on_exactly(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    written_by_tfds(tmp_path, [as_tfds_takes_them(episode(number, 3)) for number in range(40)], shards=8)

    def drawn(start: int, count: int, seed: int = 1) -> list[tuple[str, int]]:
        mixed = DroidRldsDataset(
            str(tmp_path),
            4,
            datasets=(Part(),),
            action_chunk_size=2,
            action_space="joint_position",
            shuffle_buffer_size=16,
            start_batch=start,
            seed=seed,
        )
        batches = itertools.islice(mixed, count)
        return [pair for b in batches for pair in zip(b["episode"].tolist(), b["frame"].tolist(), strict=True)]

    whole = drawn(0, 70)
    assert len(set(whole[:120])) == len(set(whole[120:240])) == 120
    assert whole[:120] != whole[120:240]
    assert drawn(45, 25) == whole[4 * 45 :]
    assert drawn(0, 5, seed=2) != whole[:20]
