import io

import numpy as np
import pytest

from openpi_client import jpeg
from openpi_client.msgpack_numpy import WireFormatError

Image = pytest.importorskip("PIL.Image")

RAMP = np.tile(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], (32, 1, 3))  # smooth, as JPEG likes it


def encoded(width, height) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "picture", [RAMP, RAMP.transpose(2, 0, 1), np.stack([RAMP, RAMP // 2]), np.stack([RAMP] * 2).transpose(0, 3, 1, 2)]
)
def test_pictures_come_back_in_their_layout(picture):
    form = jpeg.compress({"nested": {"image": picture}})["nested"]["image"]
    assert sum(map(len, form[b"frames"])) < picture.nbytes / 2
    back = jpeg.expand({"nested": {"image": form}})["nested"]["image"]
    assert (back.shape, back.dtype) == (picture.shape, np.uint8)
    np.testing.assert_allclose(back.astype(int), picture, atol=6)


@pytest.mark.parametrize("value", [RAMP.astype(np.float32), RAMP[..., 0], RAMP[:8], np.zeros(3, np.uint8), "text", 1.5])
def test_what_is_no_picture_stays_as_it_is(value):
    assert jpeg.compress({"x": value})["x"] is value


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({b"frames": [encoded(8, 8), encoded(8, 16)], b"ndim": 4}, "differ in size"),
        ({b"frames": [encoded(8, 8)] * 2, b"ndim": 3}, "got 3 and 2 frames"),
        ({b"frames": [], b"ndim": 4}, "not empty"),
        ({b"frames": [b"GIF89a"], b"ndim": 3}, "no JPEG image"),
        ({b"frames": [encoded(8, 8)[:60]], b"ndim": 3}, "no JPEG image"),
        ({b"frames": [encoded(9000, 9000)], b"ndim": 3}, "too large"),
        ({b"frames": [encoded(4000, 4000)] * 5, b"ndim": 4}, "too large"),  # each alone would do
    ],
)
def test_what_is_no_array_of_pictures_is_refused(form, words):
    with pytest.raises(WireFormatError, match=words):
        jpeg.unpack_jpeg({jpeg.MARKER: True, **form})
