"""The command line: spellings, exit codes, and what `doctor` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyfacelat import weights, zoo
from pyfacelat.checkpoints import write_safetensors
from pyfacelat.cli import main, normalise
from pyfacelat.version import __version__


@pytest.mark.parametrize(
    "given, expected",
    [
        ("--target_look a_b.png --num_steps 5", "--target-look a_b.png --num-steps 5"),
        ("--save_video true x", "--save-video x"),
        ("--save-video=1", "--save-video"),
        ("--save_video false", "--no-save-video"),
        ("--save-video 0 --resume yes", "--no-save-video --resume"),
        ("--save-video --json", "--save-video --json"),
        ("a.png b.png", "a.png b.png"),
        ("-- --save_video", "-- --save_video"),
    ],
)
def test_spellings_of_related_tools(given: str, expected: str) -> None:
    assert normalise(given.split()) == expected.split()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.fixture
def face(tmp_path: Path) -> str:
    path = tmp_path / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return str(path)


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["project"], 2, "give an image as LOOK"),
        (["project", "FACE", "--target-look", "FACE"], 2, "are the same"),
        (["project", "FACE", "--steps", "many"], 2, "integer"),
        (["project", "FACE", "--steps", "0"], 2, "steps"),
        (["project", "FACE", "--preset", "blanced"], 2, "did you mean 'balanced'"),
        (["project", "FACE", "--space", "z"], 2, "space"),
        (["project", "FACE", "--loss-weights", "pixel"], 2, "pairs like"),
        (["project", "FACE", "--loss-weights", "pixle=1"], 2, "did you mean 'pixel'"),
        (["project", "FACE", "--group-weights", "left_eyes=2"], 2, "did you mean 'left_eye'"),
        (["project", "FACE", "--normalize", "max"], 2, "normalize"),
        (["project", "FACE", "--init", "absent.npz"], 2, "no such file"),
        (["project", "FACE", "--device", "cuda:77"], 1, "cuda:77"),
        (["project", "FACE", "--network", "absent.pkl"], 4, "absent.pkl"),
        (["project", "FACE", "--perceptual", "lpips-vgg16"], 4, "vgg16-397923af.pth"),
        (["project", "FACE", "--landmarker", "2dfan4"], 4, "2DFAN4-11f355bf06.pth.tar"),
        (["project", "FACE", "--network", "FACE"], 5, "face.png"),
        (["project", "absent.png"], 5, "absent.png"),
        (["project", "FACE", "absent.json"], 5, "absent.json"),
        (["convert", "absent.pkl", "out.safetensors"], 5, "absent.pkl"),
        (["convert", "FACE", "out.safetensors"], 5, "face.png"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    words: str,
    face: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "weights_dirs", lambda: [tmp_path / "weights"])
    assert main([face if item == "FACE" else item for item in arguments]) == code
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


def test_convert_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig

    torch.manual_seed(0)
    config = GeneratorConfig(
        z_dim=8, w_dim=8, img_resolution=8, num_mapping_layers=1, channel_base=64, channel_max=8
    )
    generator = Generator(config)
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_safetensors(
        source, "stylegan2-generator", dataclasses.asdict(config), generator.state_dict()
    )
    assert main(["convert", str(source), str(target)]) == 0
    assert "stylegan2-generator" in capsys.readouterr().out
    loaded = zoo.load_generator(target)
    for name, value in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_doctor_reports_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["pyfacelat"] == __version__
    ops = {(row["op"], row["device"]) for row in report["ops"]}
    assert ops >= {(op, "cpu") for op in ("bias_act", "upfirdn2d", "modulated_conv2d")}
    assert all(row["used"] in row["available"] for row in report["ops"])
    assert all(row["why_not_faster"] for row in report["ops"] if row["used"] == "reference")
    weights = {row["name"]: row for row in report["weights"]}
    assert weights["2dfan4"]["searched"] and weights["vgg16"]["how"]
    assert main(["doctor"]) == 0
    assert "why not a faster one" in capsys.readouterr().out
