"""Faces out of photographs, with an exact detector in the place of S3FD, and clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pyfacelat import weights, zoo
from pyfacelat.errors import ConfigError, LandmarkError, MissingWeightsError, NoFaceError
from pyfacelat.faces.align import misalignment
from pyfacelat.photographs import FaceFinder, align, align_clip, detect_landmarks

from .faces import scenes

TILTED = scenes.similarity(20, 0.6, (190, 60))


def boxes_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a detector says about a face: from the brows to the chin."""
    return np.concatenate([points.min(0), points.max(0), [0.9]])[None]


@pytest.fixture(scope="module")
def sample() -> nn.Module:
    return zoo.load_landmarker("sample")


def test_l5_landmarks_of_a_tilted_face(sample: nn.Module) -> None:
    """The sample network on a procedural face in a photograph: read, turned upright, read again."""
    photo, truth = scenes.photograph(TILTED)
    finder = FaceFinder(lambda _: boxes_of(truth), sample)
    found = finder.find(photo)
    eyes = np.linalg.norm(truth[36] - truth[45])
    error = np.linalg.norm(found - truth, axis=1).mean() / eyes
    assert error < 0.06
    quad = finder.align(photo, size=64)
    assert misalignment(quad.to_crop(truth) / 64) < 0.06
    again = detect_landmarks(photo, detector=lambda _: boxes_of(truth), landmarker=sample)
    assert again.shape == (68, 2) and again.dtype == torch.float32
    assert np.allclose(again, found, atol=1e-3)


def test_l5_stub_detectors() -> None:
    """Points need no network at all; no face is an error in words; several are chosen among."""
    photo, truth = scenes.photograph(TILTED)
    net = nn.Identity()
    assert np.array_equal(FaceFinder(lambda _: truth, net).find(photo), truth)
    with pytest.raises(NoFaceError, match="look: no face was found in a photograph of 480 x 400"):
        FaceFinder(lambda _: [], net).find(photo)
    two = np.stack([truth, truth * 0.5])
    with pytest.warns(UserWarning, match="2 faces"):
        assert np.array_equal(FaceFinder(lambda _: two, net).find(photo), truth)
    assert np.array_equal(FaceFinder(lambda _: two, net, face=0).find(photo), two[1])
    with pytest.raises(NoFaceError, match="only"):
        FaceFinder(lambda _: two, net, face="only").find(photo)


@pytest.mark.parametrize("face", ["smallest", -1, True, 1.5])
def test_unknown_choice(face: object) -> None:
    with pytest.raises(ConfigError, match="face: expected one of largest"):
        FaceFinder(lambda _: [], nn.Identity(), face=face)  # type: ignore[arg-type]


def test_absent_detector_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "weights_dirs", lambda: [tmp_path])
    photo, _ = scenes.photograph(TILTED)
    finder = FaceFinder(landmarker=nn.Identity())
    with pytest.raises(MissingWeightsError, match="pyfacelat fetch s3fd"):
        finder.find(photo)
    with pytest.raises(MissingWeightsError, match="pyfacelat fetch 2dfan4"):
        align(photo)


def test_align_takes_every_kind_of_picture(tmp_path: Path) -> None:
    photo, truth = scenes.photograph(TILTED)
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    tensor = torch.from_numpy(photo).permute(2, 0, 1).float() / 127.5 - 1
    expected = align(photo, truth, size=64).image
    for given in (path, str(path), Image.fromarray(photo), tensor):
        assert np.array_equal(align(given, truth, size=64).image, expected)
    assert np.array_equal(align(photo, detector=lambda _: truth, landmarker=nn.Identity(),
                                size=64).image, expected)  # fmt: skip
    with pytest.raises(LandmarkError, match="expected points"):
        align(photo, np.stack([truth, truth]))
    with pytest.raises(LandmarkError, match="one photograph, got 2"):
        align(torch.stack([tensor, tensor]), truth)


def test_l10_crops_of_a_clip_are_smooth_and_cut_from_the_full_frame() -> None:
    """N frames in, N crops out; detector noise does not make them tremble."""
    rng = np.random.default_rng(0)
    frames, landmarks = [], []
    for i in range(10):
        photo, points = scenes.photograph(scenes.similarity(2 * i, 1.2, (60 + 3 * i, 20)), 560, 480)
        frames.append(photo)
        landmarks.append(points + rng.normal(0, 1.5, (68, 2)))
    crops = align_clip(frames, landmarks, size=128)
    assert len(crops) == 10
    plain = align_clip(frames, landmarks, size=128, centre_sigma=0, axes_sigma=0)

    def tremble(faces: list) -> float:
        return float(np.abs(np.diff([f.quad for f in faces], n=2, axis=0)).mean())

    assert tremble(crops) < 0.5 * tremble(plain)
    # The crop of a still, sharp picture is as sharp as the frame: not enlarged from a small copy.
    face = scenes.face(256)[0]
    sharp = np.abs(np.diff(face.astype(float), axis=1)).max()
    assert np.abs(np.diff(crops[5].image.astype(float), axis=1)).max() > 0.5 * sharp
    finder = FaceFinder(lambda _: landmarks[0], nn.Identity())
    assert len(align_clip(frames[:2], finder=finder, size=32)) == 2
    with pytest.raises(LandmarkError, match="one for each of 10"):
        align_clip(frames, landmarks[:3])
    with pytest.raises(NoFaceError, match="frame 0"):
        align_clip(frames, finder=FaceFinder(lambda _: None, nn.Identity()))
    assert align_clip([], []) == []
