"""`pyfacelat animate` and `pyfacelat frames`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyfacelat import procface
from pyfacelat.cli import main
from pyfacelat.video import read_frames, write_mp4

from ..faces import scenes


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.fixture
def look(tmp_path: Path) -> Path:
    path = tmp_path / "look.png"
    Image.fromarray(scenes.face(128)[0]).save(path)
    return path


@pytest.fixture
def track(tmp_path: Path) -> Path:
    """Two frames of a head that sinks."""
    points = scenes.face(128)[1]
    np.save(tmp_path / "track.npy", np.stack([points, points + [0, 3]]).astype(np.float32))
    return tmp_path / "track.npy"


def test_a_track_drives_the_sample_models(
    look: Path, track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    short = ["--steps", 2, "--frame-steps", 1, "--device", "cpu"]
    assert run("animate", look, track, "--outdir", out, *short, "--save_frames", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outdir"] == str(out) and told["frames"] == 2
    assert len(list(read_frames(out / "side_by_side.mp4"))) == 2
    names = sorted(path.name for path in (out / "frames").iterdir())
    assert names == ["proj_0_1.npz", "proj_0_1.png", "proj_1_1.npz", "proj_1_1.png"]


def test_frames_drive_the_sample_models(look: Path, tmp_path: Path) -> None:
    """Their motion is taken over, the shape of the face in them is not."""
    clip, out = tmp_path / "clip", tmp_path / "out"
    clip.mkdir()
    other = procface.render(procface.from_latent(np.ones((2, procface.Z_DIM))), 128)
    for index, frame in enumerate(other["image"]):
        Image.fromarray(frame).save(clip / f"{index}.png")
    short = ["--steps", 4, "--frame-steps", 1, "--device", "cpu", "--align", "false"]
    assert run("animate", look, clip, "--outdir", out, *short) == 0
    told = json.loads((out / "result.json").read_text())
    assert told["steps"] == {"look": 2, "first": 2, "frames": 1}
    asked, seen = np.array(told["target_landmarks"]), other["landmarks"]
    assert 0.3 < np.abs(asked - seen).mean() < 10


def test_published_spellings(
    look: Path, track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--target_look", look, "--target_landmarks_folder", track, "--outdir", out]
    arguments += ["--mode", "sequential", "--preset", "reference", "--num-steps-first", 1]
    arguments += ["--num-steps", 1, "--lpips_weight", 1, "--landmark_weight", 0.1, "--d_weight", 0]
    arguments += ["--fidelity_weight", 0.05, "--smoothness_weight", 0.05, "--midpoints"]
    assert run("animate", *arguments, "--landmark_weights", "0.05,1,1,0.1,1,1,1,5,5") == 0
    assert "2 frames in" in capsys.readouterr().out
    assert len(list(read_frames(out / "animation.mp4"))) == 3


def test_frames_of_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(12)], fps=24)
    out = tmp_path / "frames"
    assert run("frames", clip, "--outdir", out) == 0
    found = [np.asarray(Image.open(out / f"{i}.png")) for i in range(12)]
    assert all(abs(int(f.mean()) - 20 * i) < 6 for i, f in enumerate(found))
    assert found[0].shape == (48, 64, 3)
    capsys.readouterr()
    assert (
        run("frames", clip, "--outdir", tmp_path / "few", "--every", 3, "--most", 2, "--json") == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == 2 and told["fps"] == 8 and told["size"] == [64, 48]
    assert abs(int(np.asarray(Image.open(tmp_path / "few" / "1.png")).mean()) - 60) < 6


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["animate", "LOOK"], 2, "DRIVING"),
        (["animate", "LOOK", "TRACK", "--target-look", "LOOK"], 2, "the same; give one"),
        (["animate", "LOOK", "absent.mp4"], 5, "driving: there is no file"),
        (["animate", "LOOK", "LOOK", "--mode", "best"], 2, "mode: expected"),
        (["animate", "absent.png", "TRACK"], 5, "look: "),
        (["frames", "absent.mp4"], 5, "no file"),
        (["frames", "FOLDER"], 2, "expected a video"),
        (["frames", "LOOK", "--every", "0"], 2, "every: expected at least 1"),
    ],
)
def test_exit_codes(
    arguments: list[str], code: int, words: str, look: Path, track: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    named = {"LOOK": look, "TRACK": track, "FOLDER": tmp_path}
    assert run(*(named.get(a, a) for a in arguments)) == code
    assert words in capsys.readouterr().err
