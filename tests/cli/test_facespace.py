"""`pyfacelat facespace` on the sample models."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pyfacelat import procface
from pyfacelat.cli import main
from pyfacelat.latents import load_latents

NAMES = ["anna", "bert", "carl"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    params = procface.from_latent(np.random.default_rng(0).standard_normal((3, procface.Z_DIM)))
    for name, image in zip(NAMES, procface.render(params, 64)["image"], strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_blend_and_morph(
    faces: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["facespace", "train", str(faces), "--out", "s.safetensors", "--epochs", "1"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faces"] == NAMES
    assert list(told["image_loss"]) == ["targets", "cycle 1", "cycle 2"]
    assert Image.open("s.png").width > 3 * 128

    blend = ["facespace", "blend", "s.safetensors", "--weights", "anna=2,bert=1"]
    assert main([*blend, "--weights", "carl=1", "--random", "2", "--outdir", "b"]) == 0
    assert load_latents("b/blend_w.npz").shape[0] == 4
    assert (folder / "b" / "003.png").exists() and Image.open("b/blends.png").height > 4 * 256
    assert main([*blend, "--strength", "--outdir", "c"]) == 0
    assert not np.allclose(load_latents("c/blend_w.npz")[0], load_latents("b/blend_w.npz")[0])

    morph = ["facespace", "morph", "s.safetensors", "anna", "anna=1,bert=1", "carl"]
    assert main([*morph, "--steps", "2", "--outdir", "m"]) == 0
    assert load_latents("m/morph_w.npz").shape[0] == 5
    with av.open("m/morph.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 5
    assert main(["facespace", "frames", "m/morph.mp4", "--step", "2", "--outdir", "f"]) == 0
    assert len(list(Path("f").glob("frame-*.jpg"))) == 3

    capsys.readouterr()
    assert main(["facespace", "blend", "s.safetensors", "--weights", "emil=1"]) == 2
    assert "no face 'emil'" in capsys.readouterr().err
    assert main(["facespace", "pose", "s.safetensors", str(faces / "anna.png")]) == 2
    assert "weights of faces" in capsys.readouterr().err


def test_landmarks_and_pose(faces: Path, folder: Path) -> None:
    command = ["facespace", "train", str(faces), "--out", "s.safetensors", "--epochs", "1"]
    assert main([*command, "--landmarks", "--perceptual", "none"]) == 0
    pose = ["facespace", "pose", "s.safetensors", str(faces / "bert.png"), "--outdir", "p"]
    assert main(pose) == 0
    assert (folder / "p" / "pose.png").exists()
    assert load_latents("p/pose_w.npz").shape[0] == 1


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["train", "gone", "--out", "s.safetensors"], 2, "expected a folder"),
        (["train", ".", "--out", "s.safetensors"], 5, "no pictures"),
        (["train", ".", "--out", "s.safetensors", "--epochs", "0"], 2, "epochs"),
        (["blend", "gone.safetensors", "--random", "1"], 5, "gone.safetensors"),
        (["blend", "gone.safetensors"], 2, "weights: give"),
        (["morph", "gone.safetensors", "a"], 5, "gone.safetensors"),
        (["frames", "gone.mp4"], 5, "gone.mp4"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    words: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["facespace", *arguments]) == code
    assert words in " ".join(capsys.readouterr().err.split())
