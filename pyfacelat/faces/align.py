"""The FFHQ crop of a face, and the way back into the photograph.

Generators of faces know them the way FFHQ frames them (Karras et al. 2019, "A style-based generator
architecture for generative adversarial networks", appendix A), and misplaced crops are the most
common reason for bad projections. With eye and mouth centres from the 68 landmarks:

    e2e = right eye - left eye          (as seen in the image)
    e2m = mouth corners' mean - eye centre
    x   = unit(e2e - rot90(e2m)) * max(2.0 |e2e|, 1.8 |e2m|)
    y   = rot90(x),  centre = eye centre + 0.1 e2m,  corners = centre -+ x -+ y

The published script works in coordinates in which the centre of the first pixel is 0, and shrinks
large photographs without correcting for that; here points have the package's convention (0.5), the
crop's pixels are the script's, and `AlignedFace.quad` is what they truly show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pyfacelat.errors import ImageError, LandmarkError
from pyfacelat.faces.groups import GROUPS, NUM_LANDMARKS

Array = NDArray[Any]

_MOUTH_CORNERS = (48, 54)
_SMALLEST_SIDE = 4.0  # pixels of the photograph; a smaller face is a mistake
_LARGEST_TRANSFORM = 16384


@dataclass(frozen=True)
class AlignedFace:
    """A crop, where it came from, and how to put it back.

    Attributes:
        image: uint8 [S,S,3].
        quad: the crop's corners in the photograph, pixels, float64 [4,2]: top left, bottom left,
            bottom right, top right.
        alpha: uint8 [S,S]; 255 where the crop shows the photograph's own pixels, falling to 0
            towards its edge where the crop had to be padded beyond it.
        landmarks: float32 [68,2] pixels of the crop, or None when it was made from a quad.
        photo: the photograph, uint8 [H,W,3].
    """

    image: Array
    quad: Array
    alpha: Array
    landmarks: Array | None
    photo: Array

    @property
    def size(self) -> int:
        """S."""
        return int(self.image.shape[0])

    def to_crop(self, points: ArrayLike) -> Array:
        """Points [...,2] in pixels of the photograph as pixels of the crop."""
        basis = np.stack([self.quad[3] - self.quad[0], self.quad[1] - self.quad[0]])
        away = np.asarray(points, np.float64) - self.quad[0]
        return np.asarray(away @ np.linalg.inv(basis) * self.size)

    def to_photo(self, points: ArrayLike) -> Array:
        """Points [...,2] in pixels of the crop as pixels of the photograph."""
        basis = np.stack([self.quad[3] - self.quad[0], self.quad[1] - self.quad[0]])
        return np.asarray(np.asarray(points, np.float64) / self.size @ basis + self.quad[0])

    def paste_back(
        self, edited: Array | Image.Image, *, feather: float = 0.1, mask: ArrayLike | None = None
    ) -> Array:
        """Put an edited crop where this one came from.

        Args:
            edited: uint8 [T,T,3] or a PIL image, square, of any size; shows what `image` shows.
            feather: the width of the seam inside the crop's edge, as a share of its side, 0 to
                0.5, over which the edited face fades in.
            mask: [M,M] in [0, 1], what of the crop counts; None for all of it.

        Returns:
            uint8 [H,W,3]: the photograph, bit for bit, outside the crop and where it was padded.

        Raises:
            ImageError: `edited` is not a square RGB image, or `mask` not a square map.
            ValueError: feather out of range.
        """
        if not 0 <= feather <= 0.5:
            raise ValueError(f"feather: expected 0 to 0.5, got {feather!r}")
        face = edited.convert("RGB") if isinstance(edited, Image.Image) else edited
        face = np.asarray(face)
        if face.ndim != 3 or face.shape[0] != face.shape[1] or face.shape[2] != 3:
            raise ImageError(f"edited: expected a square [S,S,3], got {list(face.shape)}")
        if face.dtype != np.uint8:
            raise ImageError(f"edited: expected uint8, got {face.dtype}")
        photo = self.photo
        height, width = photo.shape[:2]
        left, top = np.maximum(np.floor(self.quad.min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(self.quad.max(0)).astype(int), (width, height))
        out: Array = photo.copy()
        if right <= left or bottom <= top:
            return out

        grid_x, grid_y = np.meshgrid(
            np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5, indexing="xy"
        )
        where = self.to_crop(np.stack([grid_x, grid_y], -1)) / self.size  # [h,w,2] in [0, 1]
        edge = np.minimum(where, 1 - where).min(-1)
        weight = (edge > 0).astype(np.float64)
        if feather > 0:
            ramp = np.clip(edge / feather, 0, 1)
            weight = ramp * ramp * (3 - 2 * ramp)
        box = (int(left), int(top), int(right), int(bottom))
        weight *= self._warp(Image.fromarray(self.alpha), box) / 255
        if mask is not None:
            weight *= self._warp(_as_map(mask), box) / 255
        pasted = self._warp(Image.fromarray(face), box)
        region = photo[top:bottom, left:right].astype(np.float64)
        mixed = region + (pasted - region) * weight[..., None]
        out[top:bottom, left:right] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return out

    def _warp(self, crop: Image.Image, box: tuple[int, int, int, int]) -> Array:
        """A picture of the crop as the photograph's pixels in `box` see it, float64."""
        side = float(np.linalg.norm(self.quad[3] - self.quad[0]))
        if crop.size[0] > side:  # averaged before it is sampled, or fine detail would alias
            crop = crop.resize((max(1, math.ceil(side)),) * 2, Image.Resampling.BOX)
        scale = crop.size[0] / self.size
        origin = self.to_crop(np.array([box[0], box[1]])) * scale
        across = self.to_crop(np.array([box[0] + 1, box[1]])) * scale - origin
        down = self.to_crop(np.array([box[0], box[1] + 1])) * scale - origin
        # A margin of repeated edge pixels: PIL answers 0 beyond the last pixel's centre.
        array = np.asarray(crop)
        margin = ((2, 2), (2, 2), (0, 0))[: array.ndim]
        framed = Image.fromarray(np.pad(array, margin, "edge"))
        origin = origin + 2
        coefficients = (across[0], down[0], origin[0], across[1], down[1], origin[1])
        warped = framed.transform(
            (box[2] - box[0], box[3] - box[1]),
            Image.Transform.AFFINE,
            coefficients,
            Image.Resampling.BICUBIC,
        )
        return np.asarray(warped, np.float64)


def ffhq_quad(
    points: ArrayLike, *, x_scale: float = 1.0, y_scale: float = 1.0, em_scale: float = 0.1
) -> Array:
    """The corners of the FFHQ crop.

    Args:
        points: [68,2] pixels.
        x_scale: widens the crop.
        y_scale: heightens it.
        em_scale: how far below the eyes its centre lies, as a share of the way to the mouth.

    Returns:
        float64 [4,2] pixels: top left, bottom left, bottom right, top right.

    Raises:
        LandmarkError: wrong shape, non-finite points, or eyes and mouth in one place.
    """
    centre, x, y = _axes(points, x_scale, y_scale, em_scale)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def align_face(
    photo: Array,
    points: ArrayLike,
    *,
    size: int = 1024,
    transform_size: int | None = None,
    padding: bool = True,
    x_scale: float = 1.0,
    y_scale: float = 1.0,
    em_scale: float = 0.1,
) -> AlignedFace:
    """Crop a face as FFHQ does, pixel for pixel at size 1024.

    Args:
        photo: uint8 [H,W,3].
        points: [68,2] pixels, the centre of the first pixel being 0.5.
        size: side of the crop, in pixels.
        transform_size: side of the picture that is sampled and then reduced to `size`; None for
            4 * size (FFHQ: 4096 and 1024; e4e: 256 and 256).
        padding: where the crop passes the photograph's edge, continue it by reflection, blurred;
            otherwise with black.
        x_scale: see `ffhq_quad`, as the next two.
        y_scale: of the crop's height.
        em_scale: of its centre.

    Raises:
        LandmarkError: as `ffhq_quad`; or the crop is smaller than 4 pixels, or misses the photo.
        ImageError: the photograph is not uint8 [H,W,3], or a size is out of range.
    """
    quad = ffhq_quad(points, x_scale=x_scale, y_scale=y_scale, em_scale=em_scale)
    _, x, _ = _axes(points, x_scale, y_scale, em_scale)
    side = float(np.hypot(*x)) * 2
    face = _crop(photo, quad, side, size, transform_size, padding)
    landmarks = face.to_crop(np.asarray(points, np.float64)).astype(np.float32)
    return AlignedFace(face.image, face.quad, face.alpha, landmarks, face.photo)


def crop_quad(
    photo: Array,
    quad: ArrayLike,
    *,
    size: int = 1024,
    transform_size: int | None = None,
    padding: bool = True,
) -> AlignedFace:
    """Crop a parallelogram [4,2] (see `ffhq_quad`) of a photograph, as `align_face` does."""
    corners = np.asarray(quad, np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise LandmarkError(f"quad: expected finite corners [4,2], got {corners.tolist()}")
    side = float(np.hypot(*(corners[3] - corners[0])))
    return _crop(photo, corners, side, size, transform_size, padding)


def misalignment(points: ArrayLike) -> float:
    """How far an image is from the FFHQ crop of the face in it.

    Args:
        points: [68,2] relative to the image: 0 to 1.

    Returns:
        the mean distance of the corners of `ffhq_quad` from the image's own, in sides; 0 for an
        aligned face, infinity where the points are no face.
    """
    try:
        quad = ffhq_quad(points)
    except LandmarkError:
        return math.inf
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    return float(np.linalg.norm(quad - corners, axis=1).mean())


def smooth_quads(
    quads: ArrayLike, *, centre_sigma: float = 1.0, axes_sigma: float = 3.0
) -> NDArray[np.float64]:
    """Calm the crops of a clip: Gaussian means over time of their centres and of their axes.

    Landmarks tremble from frame to frame, and a crop that trembles with them makes everything done
    to it flicker (Tzaban et al. 2022, "Stitch it in time", whose widths these are). Near the ends
    of the clip the mean is taken over the frames there are.

    Args:
        quads: [F,4,2], see `ffhq_quad`, frames in order.
        centre_sigma: of the Gaussian for the centre, in frames; 0 leaves it as it is.
        axes_sigma: the same for size and rotation, which change more slowly.

    Returns:
        [F,4,2].
    """
    corners = np.asarray(quads, np.float64)
    if corners.ndim != 3 or corners.shape[1:] != (4, 2):
        raise LandmarkError(f"quads: expected [F,4,2], got {list(corners.shape)}")
    centre = smooth_track(corners.mean(1), centre_sigma)
    x = smooth_track((corners[:, 3] - corners[:, 0]) / 2, axes_sigma)
    y = smooth_track((corners[:, 1] - corners[:, 0]) / 2, axes_sigma)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y], axis=1)


def _axes(
    points: ArrayLike, x_scale: float, y_scale: float, em_scale: float
) -> tuple[Array, Array, Array]:
    """Centre and half axes of the crop, in the points' own coordinates."""
    found = np.asarray(points, np.float64)
    if found.shape != (NUM_LANDMARKS, 2) or not np.isfinite(found).all():
        raise LandmarkError(f"points: expected finite [68,2], got shape {list(found.shape)}")
    left = found[GROUPS["left_eye"]].mean(0)
    right = found[GROUPS["right_eye"]].mean(0)
    eyes = (left + right) * 0.5
    eye_to_eye = right - left
    eye_to_mouth = found[list(_MOUTH_CORNERS)].mean(0) - eyes
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    length = np.hypot(*x)
    if not length > 0:
        raise LandmarkError("points: expected a face; its eyes and mouth are in one place")
    x = x / length
    x = x * max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    x = x * x_scale
    y = np.flipud(x) * [-y_scale, y_scale]
    return eyes + eye_to_mouth * em_scale, x, y


def _crop(
    photo: Array, quad: Array, side: float, size: int, transform_size: int | None, padding: bool
) -> AlignedFace:
    """The published steps: shrink, crop, pad, transform, reduce."""
    photo = np.asarray(photo)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
        raise ImageError(f"photo: expected uint8 [H,W,3], got {photo.dtype} {list(photo.shape)}")
    sampled = 4 * size if transform_size is None else transform_size
    for name, value in (("size", size), ("transform_size", sampled)):
        if isinstance(value, bool) or not 1 <= value <= _LARGEST_TRANSFORM:
            raise ImageError(f"{name}: expected 1 to {_LARGEST_TRANSFORM} pixels, got {value!r}")
    height, width = photo.shape[:2]
    if not side >= _SMALLEST_SIDE:
        raise LandmarkError(f"points: the face's crop would be {side:.3g} pixels wide: too small")
    if (quad.max(0) <= 0).any() or (quad.min(0) >= (width, height)).any():
        raise LandmarkError(f"points: the face lies outside the photograph of {width} x {height}")

    image = Image.fromarray(photo)
    corners = quad - 0.5  # the script's coordinates
    shrink = int(np.floor(side / size * 0.5))
    if shrink > 1:
        reduced = (int(np.rint(width / shrink)), int(np.rint(height / shrink)))
        image = image.resize((max(1, reduced[0]), max(1, reduced[1])), Image.Resampling.LANCZOS)
        corners = corners / shrink
        side /= shrink
    scale = np.array([width / image.size[0], height / image.size[1]])

    border = max(int(np.rint(side * 0.1)), 3)
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    box = (
        max(int(low[0]) - border, 0),
        max(int(low[1]) - border, 0),
        min(int(high[0]) + border, image.size[0]),
        min(int(high[1]) + border, image.size[1]),
    )
    if box[2] - box[0] < image.size[0] or box[3] - box[1] < image.size[1]:
        image = image.crop(box)
        corners = corners - box[:2]
        offset = np.array(box[:2], np.float64)
    else:
        offset = np.zeros(2)

    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    beyond = (-low[0], -low[1], high[0] - image.size[0], high[1] - image.size[1])
    pad = np.maximum(np.array(beyond) + border, 0)
    own = Image.new("L", image.size, 255)  # where the picture is the photograph's own
    if padding and pad.max() > border - 4:
        pad = np.maximum(pad, int(np.rint(side * 0.3)))
        image, own = _padded(image, pad, blur=side * 0.02)
        corners = corners + pad[:2]
        offset = offset - pad[:2]

    placed = corners + 0.5
    crop, alpha = (np.asarray(_sample(each, placed, sampled, size)) for each in (image, own))
    return AlignedFace(crop, (placed + offset) * scale, alpha, None, photo)


def _padded(image: Image.Image, pad: Array, *, blur: float) -> tuple[Image.Image, Image.Image]:
    """Continue a picture by `pad` (left, top, right, bottom) pixels; also returns what is its own.

    Reflected, blurred towards the new edge, and blended into the median colour.
    """
    pixels = np.pad(
        np.asarray(image, np.float32), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect"
    )
    height, width = pixels.shape[:2]
    y, x = np.ogrid[:height, :width]
    mask = np.maximum(
        1.0 - np.minimum(np.float32(x) / pad[0], np.float32(width - 1 - x) / pad[2]),
        1.0 - np.minimum(np.float32(y) / pad[1], np.float32(height - 1 - y) / pad[3]),
    )[..., None]
    blurred = np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
    pixels += (_gaussian(pixels, blur) - pixels) * blurred
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(mask, 0.0, 1.0)
    own = np.uint8(np.rint((1.0 - blurred[..., 0]) * 255))
    return (
        Image.fromarray(np.uint8(np.clip(np.rint(pixels), 0, 255))),
        Image.fromarray(np.asarray(own)),
    )


def _sample(image: Image.Image, corners: Array, sampled: int, size: int) -> Image.Image:
    data = tuple(float(value) for value in corners.flatten())
    out = image.transform((sampled, sampled), Image.Transform.QUAD, data, Image.Resampling.BILINEAR)
    return out.resize((size, size), Image.Resampling.LANCZOS) if size < sampled else out


def _gaussian(pixels: Array, sigma: float) -> Array:
    """Blur [H,W,C] along both axes with a Gaussian cut at 4 sigma, edges mirrored; float32.

    By Fourier transform: the kernels of large photographs have hundreds of taps.
    """
    reach = int(4.0 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    out = np.empty_like(pixels)
    for channel in range(pixels.shape[2]):
        plane = pixels[..., channel].astype(np.float64)
        for axis in (0, 1):
            widths = [(0, 0), (0, 0)]
            widths[axis] = (reach, reach)
            mirrored = np.pad(plane, widths, "symmetric")
            length = mirrored.shape[axis] + 2 * reach  # no wrapping
            spectrum = np.fft.rfft(mirrored, length, axis=axis)
            kernel = np.fft.rfft(taps, length)
            spectrum *= kernel[:, None] if axis == 0 else kernel[None, :]
            full = np.fft.irfft(spectrum, length, axis=axis)
            start, count = 2 * reach, plane.shape[axis]
            plane = np.take(full, np.arange(start, start + count), axis=axis)
        out[..., channel] = plane
    return out


def smooth_track(track: Array, sigma: float) -> Array:
    """Gaussian mean over time of a track [F,...]; sigma in frames, 0 leaves it as it is."""
    if sigma <= 0 or len(track) < 2:
        return track
    frames = np.arange(len(track))
    weights = np.exp(-0.5 * ((frames[:, None] - frames[None, :]) / sigma) ** 2)
    weights[np.abs(frames[:, None] - frames[None, :]) > 4 * sigma] = 0
    weights /= weights.sum(1, keepdims=True)
    return np.asarray(np.tensordot(weights, track, axes=1))


def _as_map(mask: ArrayLike) -> Image.Image:
    values = np.asarray(mask, np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
        raise ImageError(f"mask: expected a square [M,M], got {list(values.shape)}")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ImageError("mask: expected values in [0, 1]")
    return Image.fromarray(np.uint8(np.rint(values * 255)))
