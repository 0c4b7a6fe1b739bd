import io

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from openpi_ros import conversions
from openpi_runtime.chunk import ActionChunk

PICTURE = np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)


def image(encoding: str, pixels: np.ndarray, padding: int = 0) -> Image:
    rows = pixels.reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return Image(height=4, width=6, encoding=encoding, step=rows.shape[1], data=rows.tobytes())


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", PICTURE),
        ("bgr8", PICTURE[..., ::-1]),
        ("rgba8", np.dstack([PICTURE, PICTURE[..., :1]])),
        ("bgra8", np.dstack([PICTURE[..., ::-1], PICTURE[..., :1]])),
    ],
)
def test_every_encoding_becomes_rgb_without_a_copy(encoding: str, pixels: np.ndarray, padding: int) -> None:
    message = image(encoding, pixels, padding)
    array = conversions.image_array(message)
    np.testing.assert_array_equal(array, PICTURE)
    assert np.shares_memory(array, np.frombuffer(message.data, np.uint8))


def test_grey_becomes_three_channels() -> None:
    array = conversions.image_array(image("mono8", PICTURE[..., 0]))
    np.testing.assert_array_equal(array, np.repeat(PICTURE[..., :1], 3, axis=2))


def test_what_cannot_be_an_image_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="'32FC1' is not supported; publish one of rgb8"):
        conversions.image_array(image("32FC1", PICTURE))
    short = image("rgb8", PICTURE)
    short.data = short.data[:-1]
    with pytest.raises(ValueError, match="cannot have 71 bytes"):
        conversions.image_array(short)
    with pytest.raises(ValueError, match="format 'jpeg' could not be decoded"):
        conversions.compressed_array(CompressedImage(format="jpeg", data=b"garbage"))


def test_image_message_and_back_over_the_wire() -> None:
    message = conversions.image_message(PICTURE, 1_500_000_002, "camera")
    again = deserialize_message(serialize_message(message), Image)
    np.testing.assert_array_equal(conversions.image_array(again), PICTURE)
    assert conversions.time_ns(again.header.stamp) == 1_500_000_002
    assert again.header.frame_id == "camera"


def test_compressed_images_are_decoded() -> None:
    from PIL import Image as PillowImage

    buffer = io.BytesIO()
    PillowImage.fromarray(PICTURE).save(buffer, "png")
    message = CompressedImage(format="png", data=buffer.getvalue())
    np.testing.assert_array_equal(conversions.compressed_array(message), PICTURE)


def test_joint_states() -> None:
    message = conversions.joint_state_message({"waist": 0.5, "elbow": -1}, 7)
    assert (list(message.name), list(message.position)) == (["waist", "elbow"], [0.5, -1.0])
    assert conversions.time_ns(message.header.stamp) == 7


def test_chunks_survive_the_wire_up_to_single_precision() -> None:
    chunk = ActionChunk(
        chunk_id=2**40,
        stamp_ns=5_000_000_001,
        period_ns=20_000_000,
        actions=np.random.default_rng(1).normal(size=(50, 14)),
        action_names=tuple(f"joint{i}" for i in range(14)),
        frozen_steps=3,
        prompt="transfer cube",
        inference_ms=12.5,
        pipeline_ms=13.5,
    )
    message = conversions.chunk_message(chunk, "world")
    again = conversions.chunk_from_message(deserialize_message(serialize_message(message), type(message)))
    np.testing.assert_allclose(again.actions, chunk.actions, rtol=1e-7)
    for field in ("chunk_id", "stamp_ns", "period_ns", "action_names", "frozen_steps", "prompt", "pipeline_ms"):
        assert getattr(again, field) == getattr(chunk, field), field
    message.dim = 13
    with pytest.raises(ValueError, match="says 50 steps of 13 values but carries 700"):
        conversions.chunk_from_message(message)
