"""Images as JPEG inside a message, where both ends agree on it: about 20 times fewer bytes, and no longer exact.

An image [h, w, 3] or a stack of them [n, h, w, 3] travels as {b"__jpeg__": true, b"frames": [bytes, ..],
b"ndim": 3 or 4}, the form that Positronic uses too; b"chw": true marks images that are [3, h, w] in the observation.
Needs Pillow (`pip install 'openpi-client[images]'`).
"""

import io
from typing import Any

import numpy as np

from openpi_client import msgpack_numpy

MARKER = b"__jpeg__"
SMALLEST_SIDE = 16  # below this, an array with three channels is hardly a picture
MAX_PIXELS = 64_000_000  # of one array; a small file can claim to be huge


def compress(tree: Any, quality: int = 90) -> Any:
    """Replace every picture in a nested observation (uint8, three channels) by its JPEG form; the rest stays."""
    if isinstance(tree, dict):
        return {key: compress(value, quality) for key, value in tree.items()}
    return _encode(tree, quality) if isinstance(tree, np.ndarray) else tree


def expand(tree: Any) -> Any:
    """Undo `compress`. Raises WireFormatError like `unpack_jpeg`."""
    if isinstance(tree, dict):
        return unpack_jpeg({key: expand(value) for key, value in tree.items()})
    return tree


def unpack_jpeg(form: dict[Any, Any]) -> Any:
    """The array of one JPEG form, and any other map as it is: for msgpack's object_hook.

    Raises:
        WireFormatError: a JPEG form that is malformed, broken, or has more than MAX_PIXELS in all its frames.
    """
    return _decode(form) if MARKER in form else form


def _encode(array: np.ndarray, quality: int) -> Any:
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or not array.size:
        return array
    chw = array.shape[-1] != 3 and array.shape[-3] == 3
    images = np.moveaxis(array, -3, -1) if chw else array
    if images.shape[-1] != 3 or min(images.shape[-3:-1]) < SMALLEST_SIDE:
        return array
    frames = [_to_jpeg(image, quality) for image in images.reshape(-1, *images.shape[-3:])]
    form = {MARKER: True, b"frames": frames, b"ndim": array.ndim}
    return {**form, b"chw": True} if chw else form


def _decode(form: dict[Any, Any]) -> np.ndarray:
    frames, ndim = form.get(b"frames"), form.get(b"ndim")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, bytes) for frame in frames):
        raise msgpack_numpy.WireFormatError("a JPEG image needs 'frames', a list of bytes that is not empty")
    if ndim not in (3, 4) or (ndim == 3 and len(frames) != 1):
        raise msgpack_numpy.WireFormatError(
            f"a JPEG image has ndim 3 (one frame) or 4, got {ndim!r} and {len(frames)} frames"
        )
    images = [_from_jpeg(frame, MAX_PIXELS // len(frames)) for frame in frames]
    if len({image.shape for image in images}) > 1:
        raise msgpack_numpy.WireFormatError("the frames of one JPEG image differ in size")
    stack = np.stack(images)
    stack = np.ascontiguousarray(np.moveaxis(stack, -1, -3)) if form.get(b"chw") else stack
    return stack if ndim == 4 else stack[0]


def _to_jpeg(image: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _from_jpeg(frame: bytes, max_pixels: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(frame), formats=["JPEG"]) as picture:
            if picture.width * picture.height > max_pixels:
                raise msgpack_numpy.WireFormatError(f"a JPEG image of {picture.size} pixels is too large")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise msgpack_numpy.WireFormatError(f"{len(frame)} bytes that are no JPEG image: {error}") from error
