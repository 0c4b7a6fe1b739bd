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
from PIL import Image

from openpi.training.datasets.droid import DroidRldsDataset, shuffled


@dataclasses.dataclass(frozen=True)
class Part:
    name: str = "droid"
    version: str = "1.0.1"
    weight: float = 1.0
    filter_dict_path: str | None = None


def jpeg(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((18, 32, 3), level, np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def episode(number: int, length: int, *, success: bool = True) -> dict[str, Any]:
    steps = [
        {
            "action_dict": {
                "joint_position": np.full(7, number + step / 100),
                "joint_velocity": np.full(7, -1.0),
                "gripper_position": np.array([float(step % 2)]),
            },
            "observation": {
                "exterior_image_1_left": jpeg(50),
                "exterior_image_2_left": jpeg(100),
                "wrist_image_left": jpeg(200),
                "joint_position": np.full(7, float(step)),
                "gripper_position": np.array([0.5]),
            },
            "language_instruction": f"task {number}".encode(),
            "language_instruction_2": b"",
        }
        for step in range(length)
    ]
    kind = "success" if success else "failure"
    return {
        "episode_metadata": {"recording_folderpath": b"r", "file_path": f"{kind}/{number}".encode()},
        "steps": steps,
    }


def read(data_dir: str, part: Any, shuffle: bool) -> Iterator[dict[str, Any]]:
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
    with pytest.raises(ValueError, match=r"keep no step of empty 1\.0\.1"):
        next(iter(dataset(Part(name="empty"), shuffle=True)))


def test_shuffling_loses_nothing() -> None:
    mixed = list(shuffled(iter(range(50)), 8, np.random.default_rng(0)))
    assert sorted(mixed) == list(range(50))
    assert mixed != list(range(50))


def written_by_tfds(data_dir: pathlib.Path, episodes: list[dict[str, Any]]) -> None:
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

    Droid(data_dir=str(data_dir)).download_and_prepare()


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
    written_by_tfds(tmp_path, [as_tfds_takes_them(one) for one in read("", Part(), False)])
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
