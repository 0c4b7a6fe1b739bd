"""From a frame to an observation, with errors that say which key was wrong."""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack
import numpy as np

from openpi_client import jpeg, msgpack_numpy
from openpi_client.async_client import FEATURES_HEADER


class BadRequestError(ValueError):
    """What a client sent is no observation; the message says where and what was expected."""


def offered() -> dict[str, str]:
    """Headers of a handshake's answer: what clients may send beyond the published protocol."""
    return {FEATURES_HEADER: "jpeg"} if importlib.util.find_spec("PIL") else {}


def decode(frame: bytes | str) -> dict[str, Any]:
    """Read one observation; JPEG images are expanded.

    Raises:
        BadRequestError: text, broken msgpack, no map at the top, refused dtypes, shapes that do not fit the data.
    """
    if isinstance(frame, str):
        raise BadRequestError("The observation must be a binary msgpack message, got a text message.")
    try:
        observation = msgpack.unpackb(frame, object_hook=_unpack)
        if not isinstance(observation, dict):
            raise BadRequestError(f"The observation must be a map of keys to values, got {type(observation).__name__}.")
        return observation
    except BadRequestError:
        raise
    except Exception as error:  # msgpack raises many kinds; whichever it is, the frame is bad
        raise BadRequestError(_where(frame) or f"The observation is no valid msgpack: {error}") from error


def _unpack(form: dict[Any, Any]) -> Any:
    return jpeg.unpack_jpeg(form) if jpeg.MARKER in form else msgpack_numpy.unpack_array(form)


def explain(observation: Mapping[str, Any], example: Mapping[str, Any] | None) -> str:
    """How an observation that a policy failed on differs from one that it takes; empty where nothing is known.

    Sizes of images are not compared: policies resize them.
    """
    if example is None:
        return ""
    try:
        return _differences(observation, example)
    except RecursionError:
        return "The observation does not fit this policy: it is nested too deeply."


def _differences(observation: Mapping[str, Any], example: Mapping[str, Any]) -> str:
    given, wanted = dict(_leaves(observation)), dict(_leaves(example))
    problems = [f"key '{key}' is missing, expected {_form(wanted[key])}" for key in wanted if key not in given]
    problems += [
        f"key '{key}' is {_form(given[key])}, expected {_form(wanted[key])}"
        for key in wanted
        if key in given and not _alike(given[key], wanted[key])
    ]
    unknown = [f"'{key}'" for key in given if key not in wanted and not key.startswith("rtc/")]
    if problems and unknown:
        problems.append(f"not expected: {', '.join(unknown)}")
    return f"The observation does not fit this policy: {'; '.join(problems)}." if problems else ""


def _where(frame: bytes) -> str:
    """The first value of a readable message that does not decode, with its path."""
    try:
        for path, value in _maps(msgpack.unpackb(frame, strict_map_key=False), ""):
            if problem := _problem(value):
                return f"Key '{path or '(top)'}' of the observation: {problem}."
    except Exception:  # not readable, or nested too deeply
        return ""
    return ""


def _problem(form: dict[Any, Any]) -> str:
    try:
        _unpack(form)
    except Exception as error:
        return str(error)
    return ""


def _maps(tree: Any, path: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        name = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
        yield from _maps(value, f"{path}/{name}" if path else name)
    if isinstance(tree, dict):
        yield path, tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _alike(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) or isinstance(given, str):
        return isinstance(wanted, str) and isinstance(given, str)
    given, wanted = _array(given), np.asarray(wanted)
    if given is None:
        return False
    if wanted.ndim >= 3:  # an image
        return given.ndim == wanted.ndim and given.dtype.kind in "uif" and given.size > 0
    return given.shape == wanted.shape and given.dtype.kind in "biuf"


def _form(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    array = _array(value)
    if array is None:
        return "a list whose parts differ in length"
    return f"{array.dtype} {list(array.shape)}" if array.dtype != object else type(value).__name__


def _array(value: Any) -> np.ndarray | None:
    try:
        return np.asarray(value)
    except ValueError:  # lists of lists of different lengths, or too many of them
        return None
