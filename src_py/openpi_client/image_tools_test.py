import numpy as np
import pytest

from openpi_client import _bilinear, image_tools

SIZES = [(37, 53, 24, 24), (64, 48, 33, 31), (20, 20, 45, 45), (480, 640, 224, 224), (51, 50, 50, 50), (90, 31, 28, 29)]


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("h", "w", "height", "width"), SIZES)
def test_own_bilinear_equals_pillow(h, w, height, width):
    pil = pytest.importorskip("PIL.Image")
    image = _noise(h, w, 3)
    wide = pil.fromarray(image).resize((width, h), resample=pil.BILINEAR)
    expected = np.asarray(wide.resize((width, height), resample=pil.BILINEAR))
    np.testing.assert_array_equal(_bilinear.resize(image, height, width), expected)


@pytest.mark.parametrize(("h", "w", "height", "width"), SIZES)
def test_resize_with_pad_is_the_same_without_pillow(monkeypatch, h, w, height, width):
    image = _noise(h, w, 3)
    with_pillow = image_tools.resize_with_pad(image, height, width)
    monkeypatch.setattr(image_tools, "Image", None)
    np.testing.assert_array_equal(image_tools.resize_with_pad(image, height, width), with_pillow)
    assert with_pillow.shape == (height, width, 3)


def test_wide_image_gets_bars_above_and_below():
    out = image_tools.resize_with_pad(np.full((48, 64, 3), 200, np.uint8), 224, 224)
    assert (out[:28] == 0).all()
    assert (out[28:196] == 200).all()
    assert (out[196:] == 0).all()


def test_batch_dimensions_and_single_channel():
    assert image_tools.resize_with_pad(_noise(2, 5, 33, 21, 3), 28, 28).shape == (2, 5, 28, 28, 3)
    assert image_tools.resize_with_pad(_noise(33, 21, 1), 28, 28).shape == (28, 28, 1)


def test_right_size_is_returned_untouched():
    image = _noise(2, 28, 28, 3)
    assert image_tools.resize_with_pad(image, 28, 28) is image


def test_other_methods_need_pillow(monkeypatch):
    monkeypatch.setattr(image_tools, "Image", None)
    with pytest.raises(ImportError, match="needs Pillow"):
        image_tools.resize_with_pad(_noise(10, 10, 3), 4, 4, method=3)


def test_convert_to_uint8():
    np.testing.assert_array_equal(image_tools.convert_to_uint8(np.array([0.0, 0.5, 1.0])), [0, 127, 255])
    ints = np.array([3], np.uint8)
    assert image_tools.convert_to_uint8(ints) is ints
