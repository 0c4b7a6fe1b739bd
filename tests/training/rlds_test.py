"""Training data and statistics from RLDS; episodes made here stand in for what TFDS reads, all else runs."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from openpi.shared import normalize
from openpi.training import data_config, data_loader, loaders, metrics, norm_stats, train_loop
from openpi.training.datasets import BadSampleError, testing

LENGTHS = {"droid": (6, 5, 7), "cups": (4, 8)}
JOINTS = data_config.DroidActionSpace.JOINT_POSITION


def read(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
    """Episodes 1, 2, ... of "droid", 101, ... of the others."""
    lengths = LENGTHS[part.name]
    order = range(len(lengths)) if seed is None else np.random.default_rng(seed).permutation(len(lengths))
    for place in order:
        yield testing.episode((1 if part.name == "droid" else 101) + int(place), lengths[place])


def dataset(name: str = "droid", weight: float = 1.0, filter_dict_path: str | None = None) -> Any:
    return data_config.RLDSDataset(name, "1.0.1", weight, filter_dict_path)


def take(config: Any, count: int, **settings: Any) -> list[Any]:
    options = {"shuffle": True, "skip_norm_stats": True} | settings
    return list(itertools.islice(iter(data_loader.create_data_loader(config, **options)), count))


def actions(batches: list[Any]) -> list[np.ndarray]:
    return [np.asarray(batch[1]) for batch in batches]


def test_batches_are_in_the_model_s_format_and_resume_exactly(rlds_run: Any) -> None:
    config = rlds_run(read)
    whole = take(config, 9)
    observation, first = whole[0]
    assert first.shape == (4, 4, 14)
    assert observation.images["base_0_rgb"].shape == (4, 28, 28, 3)
    assert observation.tokenized_prompt.shape == (4, 8)
    np.testing.assert_array_equal(first[..., 8:], 0)
    np.testing.assert_array_equal(actions(take(config, 2, start_batch=7)), actions(whole[7:]))
    states = [np.asarray(batch[0].state) for batch in whole]
    other = [np.asarray(batch[0].state) for batch in take(dataclasses.replace(config, seed=7), 9)]
    assert not np.array_equal(states, other)


def test_both_action_spaces(rlds_run: Any) -> None:
    (velocities,) = actions(take(rlds_run(read), 1, shuffle=False))
    np.testing.assert_array_equal(velocities[..., :7], -1)
    observation, positions = take(rlds_run(read, action_space=JOINTS), 1, shuffle=False)[0]
    # Positions are learnt relative to the state, the gripper's as it is.
    recorded = 1 + np.minimum(np.arange(4)[:, None] + np.arange(4), 5) / 100
    np.testing.assert_allclose(positions[..., 0], recorded - observation.state[:, :1], atol=1e-6)
    assert set(np.unique(positions[..., 7])) == {0.0, 1.0}


def test_mixture_by_weight_and_filter_of_idle_steps(rlds_run: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keep.json"
    path.write_text(json.dumps({"r--success/1": [[0, 2]], "r--success/3": [[5, 7]]}))
    parts = (dataset(weight=1.0, filter_dict_path=str(path)), dataset("cups", weight=3.0))
    batches = take(rlds_run(read, datasets=parts, action_space=JOINTS), 60)
    targets = np.concatenate(
        [chunk[:, 0, 0] + batch[0].state[:, 0] for batch, chunk in zip(batches, actions(batches), strict=True)]
    )
    is_cups = targets > 100
    assert 0.65 < is_cups.mean() < 0.85
    assert {round(float(target), 2) for target in targets[~is_cups]} == {1.0, 1.01, 3.05, 3.06}


def test_passes_follow_each_other_until_enough(rlds_run: Any) -> None:
    batches = take(rlds_run(read), 100, shuffle=False, num_batches=9)
    assert len(batches) == 9
    states = [np.asarray(batch[0].state) for batch in batches]
    np.testing.assert_array_equal(states[0], states[4])  # 18 steps are 4 batches


def test_a_stream_without_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no batch: its filters keep nothing"):
        next(iter(loaders.RLDSDataLoader([])))


def test_torch_is_refused(rlds_run: Any) -> None:
    with pytest.raises(ValueError, match="for JAX only; framework is 'pytorch'"):
        data_loader.create_data_loader(rlds_run(read), framework="pytorch", skip_norm_stats=True)


def test_statistics_are_those_of_every_step(rlds_run: Any) -> None:
    told: list[tuple[int, int]] = []
    config = rlds_run(read, datasets=(dataset(), dataset("cups")))
    stats, skipped = norm_stats.compute(config, progress=lambda *numbers: told.append(numbers))
    states = np.concatenate([np.arange(length) for length in (*LENGTHS["droid"], *LENGTHS["cups"])])
    np.testing.assert_allclose(stats["state"].mean[:7], states.mean(), atol=1e-6)
    np.testing.assert_allclose(stats["state"].std[:7], states.std(), atol=1e-6)
    np.testing.assert_allclose(stats["actions"].mean[:7], -1)
    assert told[-1][0] == len(states)
    assert skipped == 0


def test_a_part_of_the_steps_is_drawn_at_random(rlds_run: Any) -> None:
    config = rlds_run(read)
    some, again = (norm_stats.compute(config, max_frames=8)[0]["state"].mean[0] for _ in range(2))
    assert some == again
    assert some != np.mean([*range(6), 0, 1])  # the first eight
    other, _ = norm_stats.compute(dataclasses.replace(config, seed=1), max_frames=8)
    assert other["state"].mean[0] != some
    every, _ = norm_stats.compute(config, max_frames=1000)
    assert every["state"].mean[0] == pytest.approx(np.mean([*range(6), *range(5), *range(7)]))


def test_statistics_stop_at_bad_steps_or_count_them_and_need_no_images(rlds_run: Any) -> None:
    def bad(data_dir: str, part: Any, seed: int | None) -> Iterator[dict[str, Any]]:
        for episode in read(data_dir, part, seed):
            episode["steps"][2]["observation"]["joint_position"] = np.full(7, np.nan)
            episode["steps"][3]["observation"]["wrist_image_left"] = b"no picture"
            yield episode

    config = rlds_run(bad)
    with pytest.raises(BadSampleError, match="r--success/1, frame 2: 'joint_position' is not finite"):
        norm_stats.compute(config)
    assert norm_stats.compute(config, on_bad="skip")[1] == 3


@pytest.mark.long
def test_training_on_a_stream_resumes_exactly(rlds_run: Any, tmp_path: pathlib.Path) -> None:
    config = rlds_run(read, assets=data_config.AssetsConfig(assets_dir=str(tmp_path), asset_id="droid"))
    normalize.save(tmp_path / "droid", norm_stats.compute(config)[0])
    train_loop.train(config)
    broken = dataclasses.replace(config, exp_name="broken", num_train_steps=3)
    train_loop.train(broken)
    train_loop.train(dataclasses.replace(broken, num_train_steps=6, resume=True))

    def losses(run: Any) -> list[float]:
        return [row["loss"] for row in metrics.read_metrics(run.checkpoint_dir) if "loss" in row]

    assert losses(config) == losses(broken)
    assert len(losses(config)) == 6
