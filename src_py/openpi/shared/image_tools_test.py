import jax.numpy as jnp
import numpy as np
import pytest

from openpi.shared import image_tools


@pytest.mark.parametrize(("dtype", "black", "white"), [(np.uint8, 0, 255), (np.float32, -1, 1)])
def test_wide_images_are_padded_above_and_below(dtype: type, black: int, white: int) -> None:
    image = jnp.full((2, 4, 8, 3), white, dtype)
    resized = image_tools.resize_with_pad(image, 5, 4)
    assert resized.shape == (2, 5, 4, 3)
    assert resized.dtype == dtype
    # 2 rows of image; of the 3 others the odd one lies below.
    np.testing.assert_array_equal(resized[0, :, 0, 0], [black, white, white, black, black])


def test_leading_dimensions_are_free() -> None:
    assert image_tools.resize_with_pad(jnp.zeros((4, 8, 3)), 6, 6).shape == (6, 6, 3)
    assert image_tools.resize_with_pad(jnp.zeros((2, 5, 4, 8, 3)), 6, 6).shape == (2, 5, 6, 6, 3)


def test_torch_takes_both_layouts() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    image = torch.rand(2, 4, 8, 3)
    last = image_tools.resize_with_pad_torch(image, 6, 6)
    first = image_tools.resize_with_pad_torch(image.permute(0, 3, 1, 2), 6, 6)
    assert tuple(last.shape) == (2, 6, 6, 3)
    torch.testing.assert_close(first, last.permute(0, 3, 1, 2))
    assert image_tools.resize_with_pad_torch((image[0] * 255).to(torch.uint8), 6, 6).dtype == torch.uint8
