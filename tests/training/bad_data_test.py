"""Five kinds of bad data in every kind of dataset: an error that says where, or skipped and counted."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openpi import transforms
from openpi.training import config as _config
from openpi.training import data_loader, metrics, train_loop
from openpi.training import options as options_of_loop
from openpi.training.datasets import BadSampleError, LeRobotWriter, layouts, testing

LENGTH = 6
CAMERA = "observation.images.top"
KINDS = ("missing key", "wrong dims", "broken video", "empty episode", "NaN actions")
# Episode 1 is bad: as a whole, or from the frame on that stands here.
BAD_FRAME = 2


class Own:
    """Three episodes; `spoil` changes the samples of one of them."""

    def __init__(self, spoil: Callable[[dict[str, Any]], None] = lambda sample: None) -> None:
        self._spoil = spoil

    def __len__(self) -> int:
        return 3 * LENGTH

    def __getitem__(self, index: Any) -> dict[str, Any]:
        episode, frame = divmod(int(index), LENGTH)
        sample = {
            "observation.state": np.full(14, 0.1 * episode),
            "action": np.full((4, 14), 0.1 * episode + 0.01 * frame),
            CAMERA: np.full((28, 28, 3), 40 * episode, np.uint8),
            "episode_index": episode,
            "frame_index": frame,
        }
        if (episode, frame) == (1, BAD_FRAME):
            self._spoil(sample)
        return sample


def own(kind: str, tiny_run: Any) -> tuple[_config.TrainConfig, dict[str, Any]]:
    def spoil(sample: dict[str, Any]) -> None:
        if kind == "missing key":
            del sample["action"]
        elif kind == "broken video":
            raise OSError("moov atom not found")
        else:
            sizes = {"wrong dims": (4, 15), "empty episode": (0, 14), "NaN actions": (4, 14)}
            sample["action"] = np.full(sizes[kind], np.nan if kind == "NaN actions" else 0.0)

    return tiny_run("own"), {"dataset": Own(spoil)}


def lerobot(kind: str, tiny_run: Any, root: pathlib.Path, version: Any, patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(layouts, "_DATA_FILE_MB", 1e-6)  # an episode a file
    patch.setattr(layouts, "_VIDEO_FILE_MB", 1e-6)
    features = {
        "observation.state": {"dtype": "float32", "shape": (14,)},
        "action": {"dtype": "float32", "shape": (14,)},
        CAMERA: {"dtype": "video", "shape": (28, 28, 3)},
    }
    with LeRobotWriter(root, fps=10, features=features, version=version) as writer:
        for episode, frame in itertools.product(range(3), range(LENGTH)):
            sample = Own()[episode * LENGTH + frame]
            writer.add_frame({key: sample[key][0] if key == "action" else sample[key] for key in features}, task="push")
            if frame + 1 == LENGTH:
                writer.save_episode()
    (table,) = [path for path in root.glob("data/*/*.parquet") if path.stem.endswith("001")]
    if kind == "empty episode":
        empty_episode(root)
    elif kind == "broken video":
        (video,) = [path for path in root.glob("videos/**/*.mp4") if path.stem.endswith("001")]
        video.write_bytes(video.read_bytes()[:40])
    else:
        pq.write_table(spoilt(kind, pq.read_table(table)), table)
    config = tiny_run("lerobot")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, repo_id=str(root))), {}


def spoilt(kind: str, table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("action")
    if kind == "missing key":
        return table.remove_column(place)
    rows = np.array(table["action"].to_pylist())
    if kind == "wrong dims":
        rows = np.pad(rows, ((0, 0), (0, 1)))
    else:
        rows[BAD_FRAME] = np.nan
    return table.set_column(place, "action", pa.array(rows.tolist(), pa.list_(pa.float32())))


def empty_episode(root: pathlib.Path) -> None:
    lines = root / "meta/episodes.jsonl"
    if lines.is_file():
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        rows[1]["length"] = 0
        lines.write_text("\n".join(map(json.dumps, rows)))
        return
    (path,) = root.glob("meta/episodes/*/*.parquet")
    rows = pq.read_table(path).to_pylist()
    rows[1]["length"] = 0
    pq.write_table(pa.Table.from_pylist(rows), path)


def rlds(kind: str, rlds_run: Any) -> Any:
    def read(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
        for number in range(3):
            episode = testing.episode(number, LENGTH)
            if number == 1:
                spoil_steps(kind, episode["steps"])
            yield episode

    return rlds_run(read), {"skip_norm_stats": True}


def spoil_steps(kind: str, steps: list[dict[str, Any]]) -> None:
    if kind == "empty episode":
        steps.clear()
        return
    step = steps[BAD_FRAME]
    if kind == "missing key":
        del step["action_dict"]["joint_velocity"]
    elif kind == "broken video":
        step["observation"]["wrist_image_left"] = testing.jpeg(50)[:200]
    else:
        step["action_dict"]["joint_velocity"] = np.full(8, 0.0) if kind == "wrong dims" else np.full(7, np.nan)


# What the error says of the place; None stands for all frames of the episode.
WHERE = {
    "own": (1, BAD_FRAME),
    "v2.1": (1, None),
    "v3.0": (1, None),
    "rlds": ("r--success/1", BAD_FRAME),
}
REASONS = {
    "missing key": "'action'|'joint_velocity' is not recorded",
    "wrong dims": r"shape \(4, 15\)|shape \(15,\)|has 8 values",
    "broken video": "moov atom not found|cannot be opened|cannot be decoded",
    "empty episode": r"is empty|has shape \(0, 14\)",
    "NaN actions": "is not finite",
}


def place(source: str, kind: str) -> tuple[Any, Any]:
    episode, frame = WHERE[source]
    if (source, kind) == ("own", "broken video"):  # what cannot be read does not say where it is from
        return None, LENGTH + BAD_FRAME
    if kind == "empty episode":
        return episode, frame if source == "own" else None
    if source.startswith("v"):
        frame = {"NaN actions": BAD_FRAME, "wrong dims": 0, "broken video": 0}.get(kind)
    return episode, frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", list(WHERE))
def test_bad_data_are_named_or_skipped_and_counted(
    source: str,
    kind: str,
    tiny_run: Any,
    rlds_run: Any,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if source == "own":
        config, options = own(kind, tiny_run)
    elif source == "rlds":
        config, options = rlds(kind, rlds_run)
    else:
        config, options = lerobot(kind, tiny_run, tmp_path / "data", source, monkeypatch)
    names = {"own": "Own", "rlds": "droid"}
    with pytest.raises(BadSampleError, match=REASONS[kind]) as caught:
        list(data_loader.create_data_loader(config, num_batches=4, **options))
    assert caught.value.dataset == names.get(source, str(tmp_path / "data"))
    assert (caught.value.episode, caught.value.frame) == place(source, kind)

    loader = data_loader.create_data_loader(config, num_batches=4, on_bad="skip", **options)
    batches = list(loader)
    assert len(batches) == 4
    for observation, actions in batches:
        assert actions.shape == (4, 4, 14)
        assert np.isfinite(actions).all()
        assert np.isfinite(observation.state).all()
    if kind == "empty episode" and source.startswith("v"):
        assert "skipped 1 unusable episodes: [1]" in caplog.text
    else:
        assert loader.skipped_before(4) > 0
        assert loader.skipped_before(0) == 0


def test_samples_without_episodes_are_named_by_their_number(tiny_run: Any) -> None:
    class Plain(Own):
        name = "cubes"

        def __getitem__(self, index: Any) -> dict[str, Any]:
            sample = super().__getitem__(index)
            del sample["episode_index"]
            return sample | ({"action": np.full((4, 14), np.inf)} if index == 5 else {})

    with pytest.raises(BadSampleError, match=r"Dataset 'cubes': sample 5: .*'actions' is not finite"):
        list(data_loader.create_data_loader(tiny_run("plain"), dataset=Plain(), num_batches=2))


def test_vectors_too_long_for_the_model_are_refused_where_no_other_transform_does() -> None:
    pad = transforms.Group(inputs=[transforms.PadStatesAndActions(14)])
    samples = [{"state": np.zeros(size), "actions": np.zeros((4, size))} for size in (13, 15)]
    config = _config.DataConfig(repo_id="cubes", model_transforms=pad)
    dataset = data_loader.transform_dataset(samples, config, skip_norm_stats=True)
    assert dataset[0]["actions"].shape == (4, 14)
    with pytest.raises(ValueError, match="'state' has 15 values; the model takes at most 14"):
        dataset[1]


def test_actions_become_tokens_only_with_the_length_that_they_are_read_back_with() -> None:
    fast = transforms.Group(outputs=[transforms.ExtractFASTActions(None, 4, 7)])
    samples = [{"state": np.zeros(8), "actions": np.zeros((4, size))} for size in (7, 6)]
    config = _config.DataConfig(repo_id="cubes", model_transforms=fast)
    dataset = data_loader.transform_dataset(samples, config, skip_norm_stats=True)
    assert dataset[0]["state"].shape == (8,)
    with pytest.raises(ValueError, match="'actions' has 6 values; the model takes 7"):
        dataset[1]


def test_a_dataset_may_locate_its_samples(tiny_run: Any) -> None:
    class Located(Own):
        def __getitem__(self, index: Any) -> dict[str, Any]:
            raise OSError("disk on fire")

        def locate(self, index: int) -> tuple[int, int]:
            return 7, 10 + int(index)

    with pytest.raises(BadSampleError, match=r"episode 7, frame 10: it cannot be read: .*disk on fire"):
        list(data_loader.create_data_loader(tiny_run("located"), dataset=Located(), num_batches=1))


def test_skips_are_counted_batch_by_batch_and_go_on_from_before(tiny_run: Any) -> None:
    config, options = own("NaN actions", tiny_run)
    loader = data_loader.create_data_loader(config, on_bad="skip", **options)
    list(itertools.islice(iter(loader), 8))
    per_epoch = loader.skipped_before(4)
    assert per_epoch == 1
    assert [loader.skipped_before(batch) for batch in (0, 2, 3, 8)] == [0, 0, 1, 2]
    resumed = data_loader.create_data_loader(config, on_bad="skip", start_batch=4, skipped=per_epoch, **options)
    list(itertools.islice(iter(resumed), 4))
    assert [resumed.skipped_before(batch) for batch in (4, 8)] == [1, 2]


@pytest.mark.long
def test_the_count_goes_on_in_a_resumed_run(tiny_run: Any) -> None:
    whole, options = own("NaN actions", tiny_run)
    skipping = dataclasses.replace(whole, num_train_steps=8, loop=options_of_loop.LoopOptions(on_bad_data="skip"))
    train_loop.train(skipping, **options)
    broken = dataclasses.replace(skipping, exp_name="broken")
    train_loop.train(dataclasses.replace(broken, num_train_steps=5), **options)
    train_loop.train(dataclasses.replace(broken, resume=True), **options)

    def counts(run: Any) -> list[float]:
        rows = [row for row in metrics.read_metrics(run.checkpoint_dir) if "loss" in row]
        return [row.get("skipped_samples", 0) for row in rows]

    assert counts(skipping) == counts(broken)
    assert counts(broken)[-1] == 2
