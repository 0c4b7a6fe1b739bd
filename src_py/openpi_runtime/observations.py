"""What a policy is sent: which state columns and which camera under which key, and how its pictures lie in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float64, UInt8

from openpi_runtime.located_yaml import Entry, SpecError

IMAGE_LAYOUTS = ("chw", "hwc")

Key = tuple[str, ...]
"""A path into nested dicts; of one name for a plain key, which may hold slashes."""
Picture = UInt8[np.ndarray, "height width 3"]


class Named(Protocol):
    """A camera or a column."""

    @property
    def name(self) -> str:
        """Its name, unique among its kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservationLayout:
    """An observation as one family of policies takes it.

    Attributes:
        image_layout: "hwc": pictures [H, W, 3], "chw": [3, H, W].
        images: camera -> its key.
        state: keys of the parts of the state, each with its columns' places in the robot's state vector.
    """

    image_layout: Literal["chw", "hwc"]
    images: dict[str, Key]
    state: tuple[tuple[Key, tuple[int, ...]], ...]

    def observation(
        self, state: Float64[np.ndarray, " columns"], pictures: Mapping[str, Picture], prompt: str
    ) -> dict[str, Any]:
        """The dict a policy is sent; cameras that are no part of it are left out, and no pixel is copied."""
        result: dict[str, Any] = {"prompt": prompt}
        for key, columns in self.state:
            _put(result, key, state[list(columns)])
        for camera, key in self.images.items():
            if camera in pictures:
                _put(result, key, self._arranged(pictures[camera]))
        return result

    def with_pictures(self, observation: Mapping[str, Any], change: Callable[[Picture], Picture]) -> dict[str, Any]:
        """The observation with every picture [H, W, 3] changed; the one given stays as it is."""
        result = _copied(observation)
        for camera, picture in self.pictures(observation).items():
            _put(result, self.images[camera], np.ascontiguousarray(self._arranged(change(picture))))
        return result

    def pictures(self, observation: Mapping[str, Any]) -> dict[str, Picture]:
        """The cameras' pictures [H, W, 3] in an observation, no pixel copied."""
        found = {camera: _get(observation, key) for camera, key in self.images.items()}
        turned = (1, 2, 0) if self.image_layout == "chw" else (0, 1, 2)
        return {camera: picture.transpose(turned) for camera, picture in found.items() if picture is not None}

    def _arranged(self, picture: Picture) -> UInt8[np.ndarray, ...]:
        return picture.transpose(2, 0, 1) if self.image_layout == "chw" else picture


def parse_layout(entry: Entry, cameras: Sequence[Named], columns: Sequence[Named]) -> ObservationLayout:
    """Reads the section `observation` of a robot description; see config/robots/droid.yaml.

    Raises:
        SpecError: a camera or column is unknown, a key comes twice, or a field is missing, unknown or wrong.
    """
    fields = entry.mapping(required=("image_layout", "images", "state"))
    layout = fields["image_layout"].text(IMAGE_LAYOUTS)
    names = tuple(camera.name for camera in cameras)
    taken: list[Key] = [("prompt",)]
    images: dict[str, Key] = {}
    for item in fields["images"].items():
        image = item.mapping(required=("camera", "key"))
        camera = image["camera"].text(names)
        if camera in images:
            raise image["camera"].error(f"names {camera!r} a second time; allowed: one key for each camera")
        images[camera] = _key(image["key"], taken)
    state = tuple(_state_part(item, columns, taken) for item in fields["state"].items())
    return ObservationLayout(image_layout="hwc" if layout == "hwc" else "chw", images=images, state=state)


def plain_layout(cameras: Sequence[Named], columns: Sequence[Named]) -> ObservationLayout:
    """What a description without the section means: "state", and "images" by camera, channels first."""
    images: dict[str, Key] = {camera.name: ("images", camera.name) for camera in cameras}
    return ObservationLayout(image_layout="chw", images=images, state=((("state",), tuple(range(len(columns)))),))


def _state_part(entry: Entry, columns: Sequence[Named], taken: list[Key]) -> tuple[Key, tuple[int, ...]]:
    fields = entry.mapping(required=("key",), optional=("columns",))
    names = tuple(column.name for column in columns)
    chosen = [item.text(names) for item in fields["columns"].items()] if "columns" in fields else names
    return _key(fields["key"], taken), tuple(names.index(name) for name in chosen)


def _key(entry: Entry, taken: list[Key]) -> Key:
    """A text, or a list of texts for nested dicts; none may be another's, or lie above it."""
    key = tuple(part.text() for part in entry.items()) if isinstance(entry.value, list) else (entry.text(),)
    for other in taken:
        if key[: len(other)] == other[: len(key)]:
            raise _clash(entry, key, other)
    taken.append(key)
    return key


def _clash(entry: Entry, key: Key, other: Key) -> SpecError:
    return entry.error(f"is {list(key)}, which clashes with the key {list(other)}; allowed: a key of its own for each")


def _put(tree: dict[str, Any], key: Key, value: Any) -> None:
    *parents, leaf = key
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = value


def _get(tree: Mapping[str, Any], key: Key) -> Any:
    for name in key:
        if name not in tree:
            return None
        tree = tree[name]
    return tree


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
