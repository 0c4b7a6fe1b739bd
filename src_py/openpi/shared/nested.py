"""Nested dicts with string keys, seen through the '/'-joined paths of their leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def flatten_dict(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dict -> flat dict whose keys are the paths joined by '/'."""
    return dict(_leaves(tree, ""))


def unflatten_dict(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flat dict with '/'-joined keys -> nested dict.

    Raises:
        ValueError: one key is a leaf and also the parent of another.
    """
    nested: dict[str, Any] = {}
    for path, value in tree.items():
        *parents, leaf = path.split("/")
        node = nested
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ValueError(f"'{path}' lies below '{name}', which already holds a value; rename one of them.")
        if leaf in node:
            raise ValueError(f"'{path}' holds a value and other keys too; rename one of them.")
        node[leaf] = value
    return nested


def transform_dict(patterns: Mapping[str, str | None], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Renames or removes entries of a nested dict.

    Each '/'-joined key takes the first pattern (a regular expression for the whole key) that fits: a string is its
    new key (may refer to groups), None removes it. Keys that no pattern fits stay.

    Raises:
        ValueError: two entries end up under the same key, or one below another.
    """
    compiled = [(re.compile(pattern), new) for pattern, new in patterns.items()]
    result: dict[str, Any] = {}
    for key, value in flatten_dict(tree).items():
        new_key = _renamed(key, compiled)
        if new_key is None:
            continue
        if new_key in result:
            raise ValueError(f"Two entries would be called '{new_key}' (the second is '{key}'); change the patterns.")
        result[new_key] = value
    return unflatten_dict(result)


def apply_tree(
    tree: Mapping[str, Any], selector: Mapping[str, Any], fn: Callable[[Any, Any], Any], *, strict: bool = False
) -> dict[str, Any]:
    """Replaces each leaf of `tree` whose path is also in `selector` by fn(leaf, selected); other leaves stay.

    Raises:
        ValueError: `strict`, and a path of `selector` is not in `tree`.
    """
    selected = flatten_dict(selector)
    if strict and (missing := selected.keys() - flatten_dict(tree).keys()):
        raise ValueError(f"Missing {sorted(missing)}; there are {sorted(flatten_dict(tree))}.")
    return _map_selected(tree, selected, fn, "")


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _renamed(key: str, patterns: Sequence[tuple[re.Pattern[str], str | None]]) -> str | None:
    for pattern, new in patterns:
        if match := pattern.fullmatch(key):
            return None if new is None else match.expand(new)
    return key


def _map_selected(tree: Mapping[str, Any], selected: dict[str, Any], fn: Callable, prefix: str) -> dict[str, Any]:
    def mapped(path: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _map_selected(value, selected, fn, f"{path}/")
        return fn(value, selected[path]) if path in selected else value

    return {key: mapped(f"{prefix}{key}", value) for key, value in tree.items()}
