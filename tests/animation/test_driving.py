"""What drives: every kind of clip, how it is framed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import pyfacelat
from pyfacelat import zoo
from pyfacelat.animation.driving import Source
from pyfacelat.errors import ImageError, LandmarkError, NoFaceError
from pyfacelat.faces.align import ffhq_quad, misalignment
from pyfacelat.images import to_uint8
from pyfacelat.photographs import FaceFinder
from pyfacelat.video import write_mp4

from ..faces import scenes

SIZE = 64


@pytest.fixture(scope="module")
def sample() -> nn.Module:
    return zoo.load_landmarker("sample")


def read(driving: Any, finder: FaceFinder, **changes: Any) -> Any:
    settings = {"align": False, "size": SIZE, "look": (256, 256), "look_crop": None, "sigma": 0.0}
    fps = changes.pop("fps", None)
    return Source(driving, fps).read(finder, **{**settings, **changes})


@pytest.fixture
def finder(sample: nn.Module) -> FaceFinder:
    return FaceFinder(lambda photo: [], sample)


def frames(count: int = 3) -> list[NDArray[np.uint8]]:
    """Crops of the procedural face, each turned a little further."""
    photos = []
    for i in range(count):
        photo, _ = scenes.face(128)
        photos.append(np.asarray(Image.fromarray(photo).rotate(2.0 * i)))
    return photos


def test_every_kind_of_clip_gives_the_same(finder: FaceFinder, tmp_path: Path) -> None:
    given = frames(11)
    folder = tmp_path / "clip"
    folder.mkdir()
    for i, frame in enumerate(given):
        Image.fromarray(frame).save(folder / f"{i}.png")
    found = [
        read(driving, finder)
        for driving in (folder, given, np.stack(given), [folder / f"{i}.png" for i in range(11)])
    ]
    for other in found[1:]:
        assert torch.equal(other.points, found[0].points)
        assert (other.pictures == found[0].pictures).all()
    turned = found[0].points[:, 45] - found[0].points[:, 36]
    angles = torch.atan2(turned[:, 1], turned[:, 0])
    assert bool((angles.diff() < 0).all())  # natural order: 2.png before 10.png
    write_mp4(tmp_path / "clip.mp4", given, fps=12)
    video = read(tmp_path / "clip.mp4", finder)
    assert video.fps == 12 and len(video) == 11
    assert (video.points - found[0].points).abs().max() < 0.05
    assert read(folder, finder, fps=5.0).fps == 5.0


def test_a_track_is_in_pixels_of_the_look(finder: FaceFinder, tmp_path: Path) -> None:
    points = scenes.face(256)[1]
    track = np.stack([points, points + 2])
    np.save(tmp_path / "track.npy", track.astype(np.float32))
    np.savez(tmp_path / "track.npz", landmarks=track.astype(np.float32))
    for driving in (track, tmp_path / "track.npy", tmp_path / "track.npz", track.tolist()):
        found = read(driving, finder)
        assert found.pictures is None and found.fps == 30
        assert torch.allclose(found.points, torch.from_numpy(track / 256).float(), atol=1e-5)
    wide = read(track, finder, look=(300, 256))  # the centred square is 22 pixels further right
    assert torch.allclose(wide.points[..., 0], found.points[..., 0] - 22 / 256, atol=1e-5)


def test_a_track_that_is_no_crop_is_framed_by_itself(finder: FaceFinder) -> None:
    points = scenes.face(256)[1]
    far = np.stack([scenes.apply(scenes.similarity(15, 3.0, (700, 300)), points)] * 4)
    with pytest.raises(LandmarkError, match="driving: expected pixels"):
        read(far, finder)
    with pytest.warns(UserWarning, match="framed by themselves"):
        guessed = read(far, finder, align="auto")
    asked = read(far, finder, align=True)
    assert torch.equal(guessed.points, asked.points)
    assert misalignment(asked.points[0].numpy()) < 1e-3
    small = np.stack([points * 0.3] * 2)
    with pytest.warns(UserWarning, match="not where FFHQ's are"):
        read(small, finder, align="auto")
    assert float(read(small, finder).points.max()) < 0.3


def test_smoothing_averages_over_time(finder: FaceFinder) -> None:
    points = scenes.face(256)[1]
    shaken = np.stack([points + (-1) ** i for i in range(8)])
    plain, smooth = (read(shaken, finder, sigma=s).points for s in (0.0, 2.0))
    assert smooth.diff(dim=0).abs().max() < 0.1 * plain.diff(dim=0).abs().max()


def test_l10_faces_in_photographs_are_cropped_and_calm(sample: nn.Module) -> None:
    """Clips of a face that is small and tilted, with a detector that trembles."""
    photo, points = scenes.photograph(scenes.similarity(20, 0.6, (190, 60)))
    rng = np.random.RandomState(0)
    finder = FaceFinder(lambda _: points + rng.randn(), sample)
    with pytest.warns(UserWarning, match="cropped to the face"):
        found = read([photo] * 5, finder, align="auto", size=128)
    assert found.pictures.shape == (5, 128, 128, 3)
    truth = scenes.face(128)[1] / 128
    assert np.abs(found.points.numpy() - truth)[:, 17:].max() < 0.05
    trembling = np.stack([ffhq_quad(points + rng.randn()) for _ in range(5)]).std(0).mean()
    assert found.points.std(0).mean() * 256 * 0.6 < trembling


def test_no_face_names_the_frame(sample: nn.Module) -> None:
    photo, points = scenes.photograph(scenes.similarity(20, 0.6, (190, 60)))
    answers = iter([points, points, np.zeros((0, 4))])
    with pytest.raises(NoFaceError, match="driving: frame 2"):
        read([photo] * 4, FaceFinder(lambda _: next(answers), sample), align=True)


@pytest.mark.parametrize(
    "driving, error, words",
    [
        (np.zeros((5, 67, 2)), LandmarkError, r"driving: expected points.*\[5, 67, 2\]"),
        (np.full((5, 68, 2), np.nan), LandmarkError, "driving: expected finite"),
        (np.full((5, 68, 2), 0.5), LandmarkError, "multiply relative points by its side, 256"),
        ("absent.mp4", ImageError, "driving: there is no file"),
        ("EMPTY", ImageError, "there are no pictures in it"),
        ("NOISE.mp4", ImageError, "not a readable video"),
        ("NOISE.npy", LandmarkError, "not a file of 68 points"),
        ([], ImageError, "driving"),
        (3.0, ImageError, "driving"),
    ],
)
def test_refusals(
    driving: Any, error: type[Exception], words: str, finder: FaceFinder, tmp_path: Path
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "NOISE.mp4").write_bytes(b"noise" * 100)
    (tmp_path / "NOISE.npy").write_bytes(b"noise" * 100)
    given = tmp_path / driving if isinstance(driving, str) else driving
    with pytest.raises(error, match=words):
        read(given, finder)


def test_one_look(nets: dict[str, Any], look: Tensor, clip: Tensor) -> None:
    with pytest.raises(ImageError, match="look: expected one image, got 5"):
        pyfacelat.animate(clip, clip, **nets)


def test_pictures_and_their_points_drive_alike(
    nets: dict[str, Any], look: Tensor, clip: Tensor
) -> None:
    """A track read off the frames by the same network gives the same frames."""
    # As files hold them: a tensor is rounded to 8 bits as well.
    short: dict[str, Any] = {**nets, "steps": 4, "frame_steps": 2, "preset": "balanced"}
    pictures = pyfacelat.animate(look, clip, **short)
    assert pictures.driving is not None
    assert (pictures.driving == to_uint8(clip).numpy()).all()
    points = pyfacelat.animate(look, pictures.target_landmarks, align=False, **short)
    assert torch.allclose(points.ws, pictures.ws, atol=1e-4)
