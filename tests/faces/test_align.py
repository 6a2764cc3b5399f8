"""The FFHQ crop against the published recipe, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from pyfacelat.errors import ImageError, LandmarkError
from pyfacelat.faces.align import (
    AlignedFace,
    align_face,
    crop_quad,
    ffhq_quad,
    misalignment,
    smooth_quads,
)

from . import scenes

UPRIGHT = scenes.similarity(0, 0.6, (150, 110))
TILTED = scenes.similarity(23, 0.7, (180, 60))
CUT = scenes.similarity(-12, 0.8, (-60, 190))  # the face passes two borders


def published(
    photo: NDArray[np.uint8], points: NDArray[np.float64], output: int, transform: int
) -> NDArray[np.uint8]:
    """FFHQ's recipe (Karras et al. 2019), in its own coordinates: pixel 0 has its centre at 0."""
    lm = points - 0.5
    img = Image.fromarray(photo)
    eye_left, eye_right = lm[36:42].mean(0), lm[42:48].mean(0)
    eye_avg = (eye_left + eye_right) * 0.5
    e2e = eye_right - eye_left
    e2m = (lm[48] + lm[54]) * 0.5 - eye_avg
    x = e2e - np.flipud(e2m) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*e2e) * 2.0, np.hypot(*e2m) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eye_avg + e2m * 0.1
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])
    qsize = np.hypot(*x) * 2

    shrink = int(np.floor(qsize / output * 0.5))
    if shrink > 1:
        rsize = tuple(int(np.rint(s / shrink)) for s in img.size)
        img = img.resize(rsize, Image.Resampling.LANCZOS)
        quad, qsize = quad / shrink, qsize / shrink
    border = max(int(np.rint(qsize * 0.1)), 3)
    lo, hi = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    crop = (
        max(lo[0] - border, 0), max(lo[1] - border, 0),
        min(hi[0] + border, img.size[0]), min(hi[1] + border, img.size[1]),
    )  # fmt: skip
    if crop[2] - crop[0] < img.size[0] or crop[3] - crop[1] < img.size[1]:
        img = img.crop(tuple(int(v) for v in crop))
        quad = quad - crop[0:2]
    lo, hi = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    pad = (
        max(-lo[0] + border, 0), max(-lo[1] + border, 0),
        max(hi[0] - img.size[0] + border, 0), max(hi[1] - img.size[1] + border, 0),
    )  # fmt: skip
    if max(pad) > border - 4:
        pad = np.maximum(pad, int(np.rint(qsize * 0.3)))
        f = np.pad(np.float32(img), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
        h, w, _ = f.shape
        yy, xx, _ = np.ogrid[:h, :w, :1]
        mask = np.maximum(
            1.0 - np.minimum(np.float32(xx) / pad[0], np.float32(w - 1 - xx) / pad[2]),
            1.0 - np.minimum(np.float32(yy) / pad[1], np.float32(h - 1 - yy) / pad[3]),
        )
        blur = qsize * 0.02
        f += (gaussian_filter(f, [blur, blur, 0]) - f) * np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
        f += (np.median(f, axis=(0, 1)) - f) * np.clip(mask, 0.0, 1.0)
        img = Image.fromarray(np.uint8(np.clip(np.rint(f), 0, 255)))
        quad = quad + pad[:2]
    data = tuple((quad + 0.5).flatten())
    img = img.transform(
        (transform, transform), Image.Transform.QUAD, data, Image.Resampling.BILINEAR
    )
    if output < transform:
        img = img.resize((output, output), Image.Resampling.LANCZOS)
    return np.asarray(img)


@pytest.mark.parametrize(
    "matrix, output, transform",
    [(UPRIGHT, 256, 1024), (TILTED, 128, 512), (TILTED, 32, 128), (UPRIGHT, 200, 200)],
)
def test_s1_crop_equals_the_published_recipe(matrix, output: int, transform: int) -> None:
    photo, points = scenes.photograph(matrix)
    face = align_face(photo, points, size=output, transform_size=transform)
    assert np.array_equal(face.image, published(photo, points, output, transform))
    assert (face.alpha == 255).all()


@pytest.mark.parametrize("output, transform", [(128, 512), (24, 96)])
def test_s1_padded_crop_equals_the_published_recipe(output: int, transform: int) -> None:
    """A face cut by the border; the blur is a Fourier transform here, so that ties may differ."""
    photo, points = scenes.photograph(CUT)
    face = align_face(photo, points, size=output, transform_size=transform)
    expected = published(photo, points, output, transform)
    assert face.image.shape == (output, output, 3)
    difference = np.abs(face.image.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_s1_dots_are_recovered_within_a_pixel() -> None:
    """All 68, drawn in groups in which none is near another."""
    _, points = scenes.face(256)
    groups: list[list[int]] = []
    for index, point in enumerate(points):
        for group in groups:
            if np.hypot(*(points[group] - point).T).min() > 16:
                group.append(index)
                break
        else:
            groups.append([index])
    y, x = np.mgrid[:256, :256] + 0.5
    for matrix in (UPRIGHT, TILTED, scenes.similarity(-40, 1.3, (160, 300))):
        where = scenes.apply(matrix, points)
        for group in groups:
            face = align_face(scenes.dots(where[group], 640, 600), where, size=256)
            assert face.landmarks is not None
            # FFHQ's crop of a face in its own frame is that frame.
            assert np.abs(face.landmarks - points).max() < 0.05
            for index in group:
                near = np.hypot(x - points[index, 0], y - points[index, 1]) < 8
                weight = face.image[..., 0] * near
                found = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
                assert np.abs(found - points[index]).max() < 1.0


def test_s1_two_poses_give_one_crop() -> None:
    """Rotated, scaled and shifted, the crops agree to 30 dB."""
    first, second = (
        align_face(*scenes.photograph(m, size=256), size=128).image
        for m in (scenes.similarity(0, 1.2, (90, 50)), scenes.similarity(31, 1.0, (210, 40)))
    )
    assert scenes.psnr(first[16:-16, 16:-16], second[16:-16, 16:-16]) > 30


def test_s1_alpha_marks_what_was_padded() -> None:
    photo, points = scenes.photograph(CUT)
    for padding in (True, False):
        face = align_face(photo, points, size=128, padding=padding)
        grid = np.stack(np.meshgrid(*[np.arange(128) + 0.5] * 2), -1)
        there = face.to_photo(grid)
        outside = (there < -8).any(-1) | (there > [488, 408]).any(-1)
        well_inside = ((there > 90) & (there < [390, 310])).all(-1)
        assert outside.mean() > 0.1 and well_inside.mean() > 0.1
        assert (face.alpha[outside] == 0).all()
        assert (face.alpha[well_inside] == 255).all()
        assert face.image[outside].any() == padding


@pytest.mark.parametrize("matrix", [UPRIGHT, TILTED, CUT], ids=["upright", "tilted", "cut"])
@pytest.mark.parametrize("size", [64, 256], ids=["coarser", "finer"])
def test_s2_pasting_the_crop_back_gives_the_photograph(matrix, size: int) -> None:
    photo, points = scenes.photograph(matrix)
    photo = scenes.backdrop(480, 400) if size == 64 else photo
    face = align_face(photo, points, size=size)
    pasted = face.paste_back(face.image)
    inside = inside_quad(face)
    assert inside.any() and not inside.all()
    assert np.array_equal(pasted[~inside], photo[~inside])
    assert scenes.psnr(pasted[inside], photo[inside]) > 30


def test_s2_shrunk_photograph() -> None:
    """A crop so much smaller than the face that the photograph is shrunk first."""
    photo, points = (
        scenes.backdrop(1501, 1333),
        scenes.apply(scenes.similarity(9, 4.0, (190, 110)), scenes.face(256)[1]),
    )
    face = align_face(photo, points, size=100)
    pasted, inside = face.paste_back(face.image), inside_quad(face)
    assert np.array_equal(pasted[~inside], photo[~inside])
    assert scenes.psnr(pasted[inside], photo[inside]) > 35
    # The published script's own crop lies up to half a shrunk pixel beside where it was meant.
    assert 0 < np.abs(face.quad - ffhq_quad(points)).max() < 5


def test_s2_the_edit_arrives_and_the_seam_is_soft() -> None:
    photo, points = scenes.photograph(TILTED)
    face = align_face(photo, points, size=128)
    red = np.zeros((300, 300, 3), np.uint8)
    red[..., 0] = 255
    pasted = face.paste_back(Image.fromarray(red), feather=0.2)
    x, y = np.rint(face.to_photo([64, 64]) - 0.5).astype(int)
    assert pasted[y, x].tolist() == [255, 0, 0]
    # Along a line through the crop the weight rises over a fifth of it, without a step.
    line = face.to_photo(np.stack([np.linspace(0, 64, 400), np.full(400, 64.0)], -1)) - 0.5
    columns, rows = np.rint(line).astype(int).T
    share = (pasted[rows, columns, 0] - photo[rows, columns, 0].astype(float)) / (
        255.0 - photo[rows, columns, 0]
    )
    assert np.abs(np.diff(share)).max() < 0.08 and share[0] < 0.05 and share[-1] == 1.0

    kept = np.zeros((64, 64))
    assert np.array_equal(face.paste_back(red, mask=kept), photo)
    kept[:, 32:] = 1
    half = face.paste_back(red, mask=kept, feather=0)
    left, right = (np.rint(face.to_photo([x, 64]) - 0.5).astype(int) for x in (30, 98))
    assert np.array_equal(half[left[1], left[0]], photo[left[1], left[0]])
    assert half[right[1], right[0]].tolist() == [255, 0, 0]


def test_points_go_to_the_crop_and_back() -> None:
    photo, points = scenes.photograph(TILTED)
    face = align_face(photo, points, size=100)
    assert np.abs(face.to_photo(face.to_crop(points)) - points).max() < 1e-9
    assert np.abs(face.to_crop(face.quad) - [[0, 0], [0, 100], [100, 100], [100, 0]]).max() < 1e-9
    assert misalignment(face.to_crop(points) / 100) < 1e-3
    again = crop_quad(photo, ffhq_quad(points), size=100)
    assert np.array_equal(again.image, face.image) and again.landmarks is None


def test_scales() -> None:
    _, points = scenes.face(256)
    plain, wide = ffhq_quad(points), ffhq_quad(points, x_scale=1.5, y_scale=2.0, em_scale=0.0)
    axes = [(q[3] - q[0], q[1] - q[0]) for q in (plain, wide)]
    assert np.allclose(axes[1][0], 1.5 * axes[0][0])
    assert np.allclose(axes[1][1], 3.0 * axes[0][1])
    assert np.allclose(wide.mean(0), points[36:48].reshape(2, 6, 2).mean(1).mean(0))


def test_misalignment_of_a_shifted_frame() -> None:
    points = scenes.face(256)[1] / 256
    assert misalignment(points) < 1e-4
    assert misalignment(points + [0.2, 0]) == pytest.approx(0.2, abs=1e-3)
    assert misalignment(np.zeros((68, 2))) == np.inf


def test_smoothed_quads() -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(ffhq_quad(scenes.face(256)[1])[None], 60, 0)
    assert np.allclose(smooth_quads(still), still)
    trembling = still + rng.normal(0, 2, (60, 1, 2))
    calm = smooth_quads(trembling)
    assert np.diff(calm.mean(1), axis=0).std() < 0.35 * np.diff(trembling.mean(1), axis=0).std()
    # Size and rotation are calmed more; the shape stays a square.
    turned = np.stack([(still[0] - 128) * (1 + s) + 128 for s in rng.normal(0, 0.05, 60)])
    sides = [np.linalg.norm(q[:, 3] - q[:, 0], axis=1) for q in (turned, smooth_quads(turned))]
    assert np.diff(sides[1]).std() < 0.1 * np.diff(sides[0]).std()
    # A steady pan is followed up to the clip's ends' half-windows.
    pan = still + np.arange(60)[:, None, None] * np.array([3.0, 1.0])
    assert np.abs(smooth_quads(pan)[12:-12] - pan[12:-12]).max() < 1e-6
    assert np.allclose(smooth_quads(trembling, centre_sigma=0, axes_sigma=0), trembling)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"points": np.zeros((68, 2))}, "in one place"),
        ({"points": np.zeros((67, 2))}, r"expected finite \[68,2\]"),
        ({"points": np.full((68, 2), np.nan)}, "finite"),
        ({"points": scenes.face(256)[1] / 200}, "too small"),
        ({"points": scenes.face(256)[1] + 5000}, "outside the photograph of 480 x 400"),
    ],
)
def test_wrong_points(change, words: str) -> None:
    photo, points = scenes.photograph(UPRIGHT)
    with pytest.raises(LandmarkError, match=words):
        align_face(**{"photo": photo, "points": points, "size": 64, **change})


def test_wrong_pictures() -> None:
    photo, points = scenes.photograph(UPRIGHT)
    with pytest.raises(ImageError, match="uint8"):
        align_face(photo.astype(np.float32), points, size=64)
    with pytest.raises(ImageError, match="size"):
        align_face(photo, points, size=0)
    face = align_face(photo, points, size=32)
    with pytest.raises(ImageError, match="square"):
        face.paste_back(photo)
    with pytest.raises(ImageError, match="mask"):
        face.paste_back(face.image, mask=np.full((4, 4), 2.0))
    with pytest.raises(ValueError, match="feather"):
        face.paste_back(face.image, feather=0.7)
    with pytest.raises(LandmarkError, match="quad"):
        crop_quad(photo, np.zeros((3, 2)))


def inside_quad(face: AlignedFace) -> NDArray[np.bool_]:
    height, width = face.photo.shape[:2]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    where = face.to_crop(np.stack([x, y], -1))
    return ((where > 0) & (where < face.size)).all(-1)
