"""Every command and example of the README, run as written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

from pyfacelat import procface
from pyfacelat.cli import main
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig
from pyfacelat.video import write_mp4

from .checkpoints.nvidia_writer import NvidiaFile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    (\S.*)$", README, flags=re.M)
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the README talks about."""
    assets = resources.files("pyfacelat") / "assets"
    (tmp_path / "look.png").write_bytes((assets / "look.png").read_bytes())
    (tmp_path / "pose.png").write_bytes((assets / "landmarks.png").read_bytes())
    (tmp_path / "pose.json").write_bytes((assets / "landmarks.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYFACELAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def write_generator_pickle(path: Path) -> None:
    """A small generator in NVIDIA's format."""
    config = GeneratorConfig(
        z_dim=16,
        w_dim=16,
        img_resolution=32,
        num_mapping_layers=2,
        channel_base=512,
        channel_max=32,
    )
    path.write_bytes(NvidiaFile(4).dump({"G_ema": ("generator", Generator(config))}))


def starting(start: str) -> list[list[str]]:
    """Arguments of the README's commands that begin with `start`, comments dropped."""
    found = [shlex.split(c, comments=True) for c in COMMANDS if c.startswith(start)]
    assert found, start
    return found


def test_every_command_is_covered_here() -> None:
    known = ("make demo", "make test", "pip install", "pyfacelat project", "pyfacelat doctor",
             "pyfacelat convert", "pyfacelat export", "pyfacelat fetch", "pyfacelat inspect",
             "pyfacelat mix", "pyfacelat morph", "pyfacelat boundary", "pyfacelat animate",
             "pyfacelat encode", "pyfacelat swap")  # fmt: skip
    assert all(command.startswith(known) for command in COMMANDS)


def test_python_example(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", EXAMPLE], check=True, cwd=folder)
    assert (folder / "result.png").is_file()
    assert (folder / "out" / "proj.mp4").is_file()


@pytest.mark.parametrize(
    "arguments",
    [c for c in map(shlex.split, COMMANDS) if c[:2] == ["pyfacelat", "project"]
     and "--network" not in c],
    ids=" ".join,
)  # fmt: skip
def test_project(arguments: list[str], folder: Path) -> None:
    assert main(arguments[1:]) == 0
    outdir = folder / arguments[arguments.index("--outdir") + 1]
    assert (outdir / "report.html").is_file()
    assert (outdir / "proj.mp4").is_file() == ("--save-video" in arguments)
    assert json.loads((outdir / "result.json").read_text())["landmark_error"][0] < 0.2


def test_own_generator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer without the loss networks is told where they go; with the sample ones it runs."""
    write_generator_pickle(folder / "ffhq.pkl")
    (arguments,) = (c for c in starting("pyfacelat project") if "--network" in c)
    assert main(arguments[1:]) == 4
    assert "vgg16-397923af.pth" in capsys.readouterr().err
    sample = ["--perceptual", "sample", "--landmarker", "sample", "--steps", "4"]
    assert main([*arguments[1:], *sample]) == 0


def test_convert(folder: Path) -> None:
    from pyfacelat import load_generator

    write_generator_pickle(folder / "ffhq.pkl")
    (arguments,) = starting("pyfacelat convert")
    assert main(arguments[1:]) == 0
    before, after = load_generator("ffhq.pkl"), load_generator("ffhq.safetensors")
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value)


def test_inspect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_generator_pickle(folder / "ffhq.pkl")
    (arguments,) = starting("pyfacelat inspect")
    assert main(arguments[1:]) == 0
    assert "32" in capsys.readouterr().out  # its resolution


def test_fetch_lists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (arguments,) = starting("pyfacelat fetch")
    assert main(arguments[1:]) == 0
    assert "2dfan4" in capsys.readouterr().out


@pytest.mark.parametrize("start", ["pyfacelat mix", "pyfacelat morph"])
def test_mixing_and_morphing(start: str, folder: Path) -> None:
    (arguments,) = starting(start)
    assert main(arguments[1:]) == 0
    outdir = folder / arguments[arguments.index("--outdir") + 1]
    assert list(outdir.glob("*_w.npz")) and list(outdir.glob("*.png"))


def test_encode_and_swap(folder: Path) -> None:
    for start in ("pyfacelat encode", "pyfacelat swap"):
        (arguments,) = starting(start)
        assert main(arguments[1:]) == 0
    assert (folder / "encoded" / "encoded_w.npz").is_file()
    assert (folder / "swapped" / "proj.png").is_file()


def test_animate(folder: Path) -> None:
    faces = procface.sweep("jaw_open", 4)
    write_mp4(folder / "clip.mp4", procface.render(faces, 128)["image"])
    (arguments,) = starting("pyfacelat animate")
    assert main([*arguments[1:], "--steps", "20"]) == 0
    assert (folder / "driven" / "animation.mp4").is_file()
    assert (folder / "driven" / "report.html").is_file()


def test_boundaries(folder: Path) -> None:
    fit, apply = starting("pyfacelat boundary")
    assert main(fit[1:]) == 0
    assert main(apply[1:]) == 0
    assert list((folder / apply[apply.index("--outdir") + 1]).glob("*.png"))


def test_export(folder: Path) -> None:
    for arguments in starting("pyfacelat export"):
        assert main(arguments[1:]) == 0
    assert (folder / "landmarks.onnx").is_file()
    assert (folder / "loss.onnx").is_file()


def test_doctor(folder: Path) -> None:
    (arguments,) = starting("pyfacelat doctor")
    assert main(arguments[1:]) == 0


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_exist(target: str) -> None:
    """`make test` is what runs this; what `make demo` runs is tested in test_demo.py."""
    assert shutil.which("make")
    shown = subprocess.run(
        ["make", "-n", target], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert ("pyfacelat demo" if target == "demo" else "pytest") in shown


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
