"""Messages to plain data and back, without copying pixels."""

from collections.abc import Mapping

import numpy as np
from builtin_interfaces.msg import Duration, Time
from openpi_msgs.msg import ActionChunk as ActionChunkMsg
from sensor_msgs.msg import CompressedImage, Image, JointState

from openpi_runtime.chunk import ActionChunk

_SECOND_NS = 1_000_000_000
# Encoding -> channels, and the order that makes them RGB.
_ENCODINGS: dict[str, tuple[int, tuple[int, ...]]] = {
    "rgb8": (3, (0, 1, 2)),
    "8UC3": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


def time_ns(stamp: Time | Duration) -> int:
    """A stamp or duration in nanoseconds."""
    return stamp.sec * _SECOND_NS + stamp.nanosec


def to_time(nanoseconds: int) -> Time:
    """Nanoseconds as a stamp."""
    return Time(sec=nanoseconds // _SECOND_NS, nanosec=nanoseconds % _SECOND_NS)


def to_duration(nanoseconds: int) -> Duration:
    """Nanoseconds as a duration."""
    return Duration(sec=nanoseconds // _SECOND_NS, nanosec=nanoseconds % _SECOND_NS)


def image_array(message: Image) -> np.ndarray:
    """Pixels of an image as uint8 RGB [H, W, 3]; a view of the message's data except for mono8.

    Raises:
        ValueError: the encoding is not supported, or the data are shorter than height and step say.
    """
    if message.encoding not in _ENCODINGS:
        allowed = ", ".join(_ENCODINGS)
        raise ValueError(f"Image encoding '{message.encoding}' is not supported; publish one of {allowed}.")
    channels, order = _ENCODINGS[message.encoding]
    pixels = np.frombuffer(message.data, np.uint8)
    if message.step < message.width * channels or pixels.size < message.height * message.step:
        raise ValueError(
            f"An image of {message.width} x {message.height} {message.encoding} with step {message.step} cannot have "
            f"{pixels.size} bytes; the camera driver fills the message wrongly."
        )
    rows = pixels[: message.height * message.step].reshape(message.height, message.step)
    image = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    return _reordered(image, order)


def _reordered(image: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    if order == (0, 1, 2):
        return image[..., :3]
    if order == (2, 1, 0):
        return image[..., 2::-1]
    return image[..., list(order)]


def compressed_array(message: CompressedImage) -> np.ndarray:
    """Decoded pixels of a JPEG or PNG as uint8 RGB [H, W, 3].

    Raises:
        ValueError: the data are not an image.
    """
    import io

    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    try:
        with PillowImage.open(io.BytesIO(bytes(message.data))) as picture:
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"A compressed image of format '{message.format}' could not be decoded.") from error


def image_message(image: np.ndarray, stamp_ns: int, frame_id: str) -> Image:
    """An rgb8 message of uint8 RGB [H, W, 3]."""
    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame_id
    message.data = image.tobytes()  # bytes, not an array: 1000 times faster in rclpy
    return message


def joint_state_message(positions: Mapping[str, float], stamp_ns: int) -> JointState:
    """A joint state of these positions."""
    message = JointState(name=list(positions), position=[float(value) for value in positions.values()])
    message.header.stamp = to_time(stamp_ns)
    return message


def chunk_message(chunk: ActionChunk, frame_id: str = "") -> ActionChunkMsg:
    """A chunk as a message; float32, so values of order 1 carry about 6e-8 of rounding."""
    horizon, dim = chunk.actions.shape
    message = ActionChunkMsg(
        chunk_id=chunk.chunk_id,
        action_names=list(chunk.action_names),
        horizon=horizon,
        dim=dim,
        period=to_duration(chunk.period_ns),
        frozen_steps=chunk.frozen_steps,
        prompt=chunk.prompt,
        inference_ms=float(chunk.inference_ms),
        pipeline_ms=float(chunk.pipeline_ms),
    )
    message.data.frombytes(np.ascontiguousarray(chunk.actions, np.float32).tobytes())
    message.header.stamp = to_time(chunk.stamp_ns)
    message.header.frame_id = frame_id
    return message


def chunk_from_message(message: ActionChunkMsg) -> ActionChunk:
    """The chunk of a message.

    Raises:
        ValueError: the number of values is not horizon * dim.
    """
    data = np.asarray(message.data, np.float64)
    if data.size != message.horizon * message.dim:
        raise ValueError(
            f"Chunk {message.chunk_id} says {message.horizon} steps of {message.dim} values but carries {data.size}."
        )
    return ActionChunk(
        chunk_id=message.chunk_id,
        stamp_ns=time_ns(message.header.stamp),
        period_ns=time_ns(message.period),
        actions=data.reshape(message.horizon, message.dim),
        action_names=tuple(message.action_names),
        frozen_steps=message.frozen_steps,
        prompt=message.prompt,
        inference_ms=message.inference_ms,
        pipeline_ms=message.pipeline_ms,
    )
