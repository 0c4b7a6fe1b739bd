import numpy as np
import pytest

from openpi.shared import nested


def test_flatten_and_unflatten():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": [3, 4]}
    flat = nested.flatten_dict(tree)
    assert flat == {"a/b": 1, "a/c/d": 2, "e": [3, 4]}
    assert nested.unflatten_dict(flat) == tree


@pytest.mark.parametrize("keys", [("a", "a/b"), ("a/b", "a")])
def test_a_leaf_cannot_be_a_parent(keys):
    with pytest.raises(ValueError, match="rename one of them"):
        nested.unflatten_dict(dict.fromkeys(keys, 1))


def test_transform_dict_first_fitting_pattern_wins():
    patterns = {"a/(.*)/w": r"b/\1", "a/.*": None}
    assert nested.transform_dict(patterns, {"a": {"x": {"w": 1}, "y": 2}, "c": 3}) == {"b": {"x": 1}, "c": 3}


def test_transform_dict_refuses_two_of_a_name():
    with pytest.raises(ValueError, match="called 'c'"):
        nested.transform_dict({"a": "c", "b": "c"}, {"a": 1, "b": 2})


def test_apply_tree_touches_the_selected_only():
    result = nested.apply_tree({"a": {"b": 1, "c": 2}, "d/e": 5}, {"a": {"b": 10}}, np.add)
    assert result == {"a": {"b": 11, "c": 2}, "d/e": 5}


def test_apply_tree_strict_names_what_is_missing():
    with pytest.raises(ValueError, match=r"Missing \['a/x'\]; there are \['a/b'\]"):
        nested.apply_tree({"a": {"b": 1}}, {"a/x": 1}, np.add, strict=True)
