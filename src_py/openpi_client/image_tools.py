"""Images before they are sent: to uint8, resized with the aspect ratio kept and black bars around."""

import numpy as np

from openpi_client import _bilinear

try:
    from PIL import Image
except ImportError:  # an extra: only methods other than bilinear need it
    Image = None  # type: ignore[assignment]

BILINEAR = 2  # Pillow's number for it


def convert_to_uint8(img: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] become uint8 in [0, 255] (truncated); anything else is returned as it is."""
    if np.issubdtype(img.dtype, np.floating):
        return (255 * img).astype(np.uint8)
    return img


def resize_with_pad(images: np.ndarray, height: int, width: int, method: int = BILINEAR) -> np.ndarray:
    """Fit uint8 images [..., h, w, c] into [..., height, width, c], centred, with zeros around.

    Equal to Pillow's resampling (rows first), bit for bit, also where Pillow is not installed (then bilinear only).
    `method` is one of Pillow's resampling filters (`PIL.Image.BILINEAR` and so on).
    """
    if images.shape[-3:-1] == (height, width):
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    fitted = np.stack([_fit(image, height, width, method) for image in flat])
    return fitted.reshape(*images.shape[:-3], *fitted.shape[-3:])


def _fit(image: np.ndarray, height: int, width: int, method: int) -> np.ndarray:
    ratio = max(image.shape[1] / width, image.shape[0] / height)
    inner_h, inner_w = int(image.shape[0] / ratio), int(image.shape[1] / ratio)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas = np.zeros((height, width, image.shape[-1]), image.dtype)
    canvas[top : top + inner_h, left : left + inner_w] = _resize(image, inner_h, inner_w, method)
    return canvas


def _resize(image: np.ndarray, height: int, width: int, method: int) -> np.ndarray:
    if Image is not None:
        picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
        # Two calls: newer Pillow releases choose the order of the two passes by cost, which changes the rounding.
        wide = picture.resize((width, picture.height), resample=method)
        return np.asarray(wide.resize((width, height), resample=method)).reshape(height, width, -1)
    if method != BILINEAR:
        raise ImportError(f"resampling method {method} needs Pillow: pip install 'openpi-client[images]'")
    return _bilinear.resize(image, height, width)
