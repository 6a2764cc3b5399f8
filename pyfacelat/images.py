"""Images in and out: files, PIL images, arrays and tensors; float32 in [-1, 1], and uint8.

One rounding rule everywhere: `uint8 = round((x + 1) * 127.5)`, clamped to [0, 255], so that -1 is
0, 1 is 255, and every uint8 value survives the way to float and back.

Files are opened only if they are regular files in one of `FORMATS`, and their pixel count is
checked from the header before anything is decoded.
"""

from __future__ import annotations

import base64
import io
import math
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pyfacelat.errors import ImageError
from pyfacelat.files import write_atomically

ImageSource: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor"

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
"""What names of such files end in, usually."""
MAX_PIXELS = 50_000_000
"""Largest image that is decoded, in pixels; known from the header, before decoding."""
_ORIENTATION = 0x0112  # EXIF's tag


def load_image(source: ImageSource, *, size: int | None = None) -> Tensor:
    """Read one image as a tensor.

    Args:
        source: a path, a PIL image, a uint8 array [H,W,3] (also [H,W] and [H,W,4]), or a float
            tensor [3,H,W] (or [1,3,H,W]) in [-1, 1].
        size: crop the largest centred square and resize it to `size` x `size` pixels (LANCZOS, as
            the published projector does). None keeps the image as it is.

    Returns:
        [3,H,W] float32 in [-1, 1].

    Raises:
        ImageError: absent file, unreadable or oversized image, wrong shape, dtype or range.
    """
    if isinstance(source, Tensor):
        image = _checked_tensor(source)
        if image.shape[0] != 1:
            raise ImageError(f"image: expected one image [3,H,W], got a batch {list(source.shape)}")
        if size is None:
            return image[0]
        return from_uint8(center_square(to_pil(image[0]), size))
    pil = open_image(source)
    return from_uint8(center_square(pil, size) if size is not None else np.asarray(pil))


def read_images(
    source: ImageSource | Sequence[ImageSource], *, name: str = "look"
) -> list[Image.Image | Tensor]:
    """Read and check one image or several, at their own sizes.

    Args:
        source: anything `load_image` takes, a tensor [N,3,H,W], an array [N,H,W,3], or a list.
        name: the argument's name, for error messages.

    Returns:
        one upright RGB PIL image or float32 tensor [3,H,W] in [-1, 1] per image.

    Raises:
        ImageError: as `load_image`; the message starts with `name`.
    """
    try:
        if isinstance(source, Tensor):
            return list(_checked_tensor(source))
        if isinstance(source, np.ndarray) and source.ndim == 4:
            source = list(source)
        if isinstance(source, Sequence) and not isinstance(source, str | bytes):
            if not source:
                raise ImageError("expected at least one image, got an empty list")
            return [image for item in source for image in read_images(item, name=name)]
        return [open_image(source)]
    except ImageError as error:
        message = str(error)
        raise ImageError(
            message if message.startswith(f"{name}: ") else f"{name}: {message}"
        ) from None


def stack_squares(images: Sequence[Image.Image | Tensor], size: int) -> Tensor:
    """Images from `read_images` as one batch [N,3,size,size]; see `load_image` for the resizing."""
    squares = [
        image
        if isinstance(image, Tensor) and image.shape[-2:] == (size, size)
        else from_uint8(center_square(to_pil(image) if isinstance(image, Tensor) else image, size))
        for image in images
    ]
    return torch.stack(squares)


def open_image(source: str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]) -> Image.Image:
    """Open a path, PIL image or uint8 array as an upright RGB image.

    EXIF orientation is applied; transparency is laid over white; 16-bit greys are scaled, not
    clipped; of an animation the first frame is taken, with a warning.

    Raises:
        ImageError: as `load_image`.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            "expected a path, a PIL image, a uint8 array or a float tensor, "
            f"got {type(source).__name__}"
        )
    path = Path(source)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read: {why}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ImageError(f"{path}: expected a regular file")
        with warnings.catch_warnings(), os.fdopen(handle, "rb") as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # An open file: PIL maps files that it opens itself, and a map of a file that
            # somebody shortens kills the process.
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(
                        f"{path}: expected at most {MAX_PIXELS} pixels, got {width} x {height}"
                    )
                if getattr(image, "n_frames", 1) > 1:
                    warnings.warn(f"{path}: animated; taking the first frame", stacklevel=3)
                image.seek(0)
                image.load()
                return _to_rgb(image)
    except ImageError as error:
        text = str(error)
        raise ImageError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: expected at most {MAX_PIXELS} pixels, got far more") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a readable image; known are {', '.join(FORMATS)}") from None
    except Exception as error:  # whatever a decoder stumbles over
        reason = f"{type(error).__name__}: {ascii(str(error))[1:-1][:200]}"
        raise ImageError(f"{path}: not a readable image ({reason})") from None


def center_square(image: Image.Image, size: int) -> np.ndarray[Any, Any]:
    """Crop the largest centred square and resize it with LANCZOS. Returns uint8 [size,size,3]."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def from_uint8(array: np.ndarray[Any, Any]) -> Tensor:
    """uint8 [H,W,3] to float32 [3,H,W] in [-1, 1]."""
    return (
        torch.from_numpy(np.array(array, dtype=np.float32)).permute(2, 0, 1).contiguous() / 127.5
        - 1
    )


def to_uint8(images: Tensor) -> Tensor:
    """Float [...,3,H,W] in [-1, 1] to uint8 [...,H,W,3], by the module's one rounding rule."""
    scaled = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).movedim(-3, -1).contiguous()


def to_pil(image: Tensor) -> Image.Image:
    """Float [3,H,W] in [-1, 1] to a PIL image."""
    return Image.fromarray(to_uint8(image).cpu().numpy())


def shrink_to(images: Tensor, size: int) -> Tensor:
    """Area-resize [N,C,H,W] to `size` pixels when it is larger; smaller images pass unchanged."""
    if images.shape[-1] <= size and images.shape[-2] <= size:
        return images
    return F.interpolate(images, size=(size, size), mode="area")


def save_png(path: str | os.PathLike[str], image: np.ndarray[Any, Any] | Image.Image) -> None:
    """Write a PNG so that the file is either whole or absent (temporary name, then rename)."""
    pil = image if isinstance(image, Image.Image) else Image.fromarray(image)
    write_atomically(path, _png(pil))


def data_url(image: Image.Image) -> str:
    """A picture as the URL of its own PNG, for pages that are to need no other file."""
    return "data:image/png;base64," + base64.b64encode(_png(image)).decode()


def enlarge(image: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """Bring a square uint8 image [R,R,3] to `side` pixels if it is smaller."""
    if image.shape[0] >= side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def tile(images: Sequence[np.ndarray[Any, Any]], *, gap: int = 4) -> np.ndarray[Any, Any]:
    """Lay uint8 images [H,W,3] of one size side by side with a white gap."""
    height = images[0].shape[0]
    bar = np.full((height, gap, 3), 255, np.uint8)
    parts = [part for image in images for part in (bar, image)][1:]
    return np.concatenate(parts, axis=1)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            "array: expected uint8 [H,W,3] (or [H,W], [H,W,4]), "
            f"got {array.dtype} {list(array.shape)}; float images go in as tensors [3,H,W]"
        )
    if 0 in array.shape:
        raise ImageError(f"array: expected at least one pixel, got shape {list(array.shape)}")
    return Image.fromarray(array)


def _to_rgb(image: Image.Image) -> Image.Image:
    if min(image.size) < 1:
        raise ImageError(f"expected at least one pixel, got {image.size[0]} x {image.size[1]}")
    if image.mode == "F":
        raise ImageError("mode F: float images have no fixed range; give a tensor in [-1, 1]")
    if image.mode == "LAB":
        raise ImageError("mode LAB: expected grey, palette, RGB, YCbCr, HSV or CMYK, got CIELAB")
    # Copies are made only where they are needed: at the limit of pixels each takes 200 MB.
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PIL's own convert() clips 16-bit greys at 255; a scan would come out white.
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"mode {image.mode}: expected 16-bit values, got up to {values.max():g}"
            )
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        below = Image.new("RGB", rgba.size, "white")
        below.paste(rgba, mask=rgba)
        return below
    return image if image.mode == "RGB" else image.convert("RGB")


def _checked_tensor(images: Tensor) -> Tensor:
    """Any float tensor [3,H,W] or [N,3,H,W] in [-1, 1] as float32 [N,3,H,W] on the CPU."""
    shape = list(images.shape)
    if not images.is_floating_point():
        raise ImageError(
            f"tensor: expected float [3,H,W] in [-1, 1], got {images.dtype} {shape}; "
            "uint8 images go in as arrays [H,W,3]"
        )
    if images.ndim not in (3, 4) or images.shape[-3] != 3 or 0 in images.shape:
        raise ImageError(f"tensor: expected shape [3,H,W] or [N,3,H,W], got {shape}")
    batch = images.detach().to("cpu", torch.float32)
    batch = batch[None] if batch.ndim == 3 else batch
    low, high = float(batch.min()), float(batch.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("tensor: expected finite values, got NaN or infinity")
    if low < -1.01 or high > 1.01:
        raise ImageError(
            f"tensor: expected values in [-1, 1], got [{low:g}, {high:g}]; "
            "scale [0, 1] by x * 2 - 1 and [0, 255] by x / 127.5 - 1"
        )
    return batch
