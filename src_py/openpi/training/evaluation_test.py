"""Which episodes are held out."""

import pytest

from openpi.training import evaluation


def test_held_out_episodes_are_drawn_by_the_seed() -> None:
    episodes = list(range(10, 30))
    training, held_out = evaluation.split_episodes(episodes, 0.2, seed=1)
    assert len(held_out) == 4
    assert sorted(training + held_out) == episodes
    assert (training, held_out) == evaluation.split_episodes(episodes, 0.2, seed=1)
    assert held_out != evaluation.split_episodes(episodes, 0.2, seed=2)[1]


def test_a_small_fraction_still_holds_one_out() -> None:
    assert len(evaluation.split_episodes([4, 5, 6], 0.01, seed=0)[1]) == 1


def test_no_fraction_holds_nothing_out() -> None:
    assert evaluation.split_episodes([4, 5], 0.0, seed=0) == ([4, 5], [])


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(ValueError, match=r"val_fraction 0.9 holds out 1 of 1 episodes"):
        evaluation.split_episodes([4], 0.9, seed=0)
