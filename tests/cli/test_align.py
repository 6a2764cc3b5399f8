"""`pyfacelat align`, `pyfacelat landmarks`, and `--align` of `pyfacelat project`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyfacelat import photographs, weights
from pyfacelat.cli import main
from pyfacelat.faces.align import align_face
from pyfacelat.video import read_frames, write_mp4

from ..faces import scenes

TILTED = scenes.similarity(20, 0.6, (190, 60))


@pytest.fixture(autouse=True)
def exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector is one that knows where the face is; no weights are there."""
    monkeypatch.setattr(weights, "weights_dirs", lambda: [tmp_path / "weights"])
    points = scenes.photograph(TILTED)[1]
    monkeypatch.setattr(photographs.FaceFinder, "detector", lambda self, photo: points)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.png"
    Image.fromarray(scenes.photograph(TILTED)[0]).save(path)
    return path


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def test_a_photograph(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("align", photo, "--outdir", out, "--size", 64, "--landmarker", "sample") == 0
    face = align_face(*scenes.photograph(TILTED), size=64)
    assert np.array_equal(np.asarray(Image.open(out / "holiday.png")), face.image)
    (row,) = json.loads((out / "crops.json").read_text())
    assert row["file"] == "holiday.png" and np.allclose(row["quad"], face.quad)


def test_landmarks_and_a_crop_from_them(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points, picture = tmp_path / "points.json", tmp_path / "drawn.png"
    arguments = ["--out", points, "--picture", picture, "--landmarker", "sample"]
    assert run("landmarks", photo, *arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(points), "points": json.loads(points.read_text())}
    truth = scenes.photograph(TILTED)[1]
    assert np.abs(np.array(json.loads(points.read_text())) - truth).max() < 1e-3
    assert Image.open(picture).size == (480, 400)
    out = tmp_path / "out"
    arguments = ["--outdir", out, "--size", 32, "--landmarks", points, "--json"]
    assert run("align", photo, *arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["crops"] == json.loads((out / "crops.json").read_text())
    assert Image.open(out / "holiday.png").size == (32, 32)


@pytest.mark.parametrize("video", [False, True], ids=["folder", "video"])
def test_l10_frames_in_frames_out(tmp_path: Path, video: bool) -> None:
    """In natural order; 12 in, 12 out."""
    photo = scenes.photograph(TILTED)[0]
    frames = [np.roll(photo, 3 * i, axis=2) for i in range(12)]  # colours tell them apart
    source = tmp_path / ("clip.mp4" if video else "clip")
    if video:
        write_mp4(source, frames)
        assert len(list(read_frames(source))) == 12
    else:
        source.mkdir()
        for i, frame in enumerate(frames):
            frame = frame.copy()
            frame[:, :, 0] = 20 * i
            Image.fromarray(frame).save(source / f"{i}.png")
        (source / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    assert run("align", source, "--outdir", out, "--res", 32, "--landmarker", "sample") == 0
    found = sorted(out.glob("*.png"), key=lambda p: int(p.stem))
    assert [p.name for p in found] == [f"{i}.png" for i in range(12)]
    if not video:
        reds = [int(np.asarray(Image.open(p))[..., 0].max()) for p in found]
        assert reds == [20 * i for i in range(12)]


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["align", "absent.png"], 5, "absent.png"),
        (["align", "EMPTY", "--landmarker", "sample"], 5, "no pictures"),
        (["align", "PHOTO"], 4, "pyfacelat fetch 2dfan4"),
        (["align", "PHOTO", "--landmarker", "sample", "--face", "first"], 2, "face: expected"),
        (["align", "EMPTY", "--landmarks", "PHOTO"], 2, "one photograph"),
        (["landmarks", "PHOTO", "--landmarker", "sample", "--device", "tpu"], 1, "device"),
        (["project", "PHOTO", "--align", "perhaps"], 2, "align: expected"),
    ],
)
def test_exit_codes(
    arguments: list[str], code: int, words: str, photo: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    stand_ins = {"PHOTO": str(photo), "EMPTY": str(tmp_path / "empty")}
    assert main([stand_ins.get(item, item) for item in arguments]) == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_no_face_is_exit_code_3(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(photographs.FaceFinder, "detector", lambda self, photo: [])
    assert run("align", photo, "--landmarker", "sample") == 3
    assert "no face was found in a photograph of 480 x 400" in capsys.readouterr().err


def test_read_frames_of_what_is_no_video(tmp_path: Path) -> None:
    from pyfacelat.errors import ImageError

    (tmp_path / "clip.mp4").write_bytes(b"no video")
    for name in ("clip.mp4", "absent.mp4"):
        with pytest.raises(ImageError, match=name):
            next(read_frames(tmp_path / name))


def test_f2_every_face_of_a_folder(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NAME_00.png is the one on the left; a photograph without faces is passed over."""
    image, points = scenes.photograph(TILTED)
    both = np.concatenate([image, image[:, ::-1]], axis=1)
    mirrored = points * (-1, 1) + (2 * image.shape[1] - 1, 0)
    folder = tmp_path / "album"
    folder.mkdir()
    Image.fromarray(both).save(folder / "two.png")
    Image.fromarray(image).save(folder / "one.png")
    Image.fromarray(np.zeros_like(image)).save(folder / "none.png")

    def detector(self: object, seen: np.ndarray) -> np.ndarray:
        if not seen.any():
            return np.zeros((0, 4))
        wide = seen.shape[1] > image.shape[1]
        return np.stack([mirrored, points]) if wide else points[None]

    monkeypatch.setattr(photographs.FaceFinder, "detector", detector)
    out = tmp_path / "out"
    arguments = ["--outdir", out, "--size", 64, "--landmarker", "sample", "--face", "all"]
    assert run("align", folder, *arguments) == 0
    rows = json.loads((out / "crops.json").read_text())
    assert [row["file"] for row in rows] == ["one_00.png", "two_00.png", "two_01.png"]
    left = align_face(both, points, size=64).image
    assert np.array_equal(np.asarray(Image.open(out / "two_00.png")), left)
    right = align_face(both, mirrored, size=64).image
    assert np.array_equal(np.asarray(Image.open(out / "two_01.png")), right)
    assert run("align", photo, *arguments, "--landmarks", tmp_path / "p.json") == 2
