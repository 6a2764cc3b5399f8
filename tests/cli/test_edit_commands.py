"""`pyfacelat mix` and `pyfacelat morph` on the sample generator."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pyfacelat import zoo
from pyfacelat.cli import main
from pyfacelat.edits.mix import style_transfer
from pyfacelat.images import to_uint8
from pyfacelat.latents import load_latents, save_latents


@pytest.fixture(scope="module")
def generator() -> zoo.Generator:
    return zoo.load_generator("sample")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_seed(generator: zoo.Generator, seed: int) -> torch.Tensor:
    z = np.random.RandomState(seed).randn(1, generator.z_dim)
    ws: torch.Tensor = generator.mapping(torch.from_numpy(z).float())
    return ws


def test_mix_makes_a_table(
    folder: Path, generator: zoo.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    save_latents("a.npz", torch.cat([from_seed(generator, 1), from_seed(generator, 2)]))
    assert main(["mix", "a.npz", "seed:3-5", "--recipe", "style", "--outdir", "m", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 6 and told["psi"] == 0
    mixed = load_latents("m/mixed_w.npz")
    expected = style_transfer(from_seed(generator, 2), from_seed(generator, 4))
    torch.testing.assert_close(mixed[4:5], expected)
    picture = np.asarray(Image.open("m/001_001.png")).astype(int)
    rendered = to_uint8(generator.synthesis(expected))[0].numpy()
    assert np.abs(picture - rendered).max() <= 1
    columns, rows = 4, 3
    side = max(128, generator.img_resolution)
    assert Image.open("m/sheet.png").size == (columns * (side + 4) - 4, rows * (side + 4) - 4)


def test_mix_takes_images_and_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look = resources.files("pyfacelat") / "assets" / "look.png"
    (folder / "look.png").write_bytes(look.read_bytes())
    command = ["mix", "look.png", "seed:3", "--rows", "0,1", "--psi", "0.5", "--outdir", "m"]
    assert main(command) == 0
    assert "rows 0, 1 of" in capsys.readouterr().out
    assert (folder / "m" / "000_000.png").exists()


def test_morph(folder: Path, generator: zoo.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["morph", "seed:1-2", "seed:3", "--steps", "3", "--method", "spherical"]
    assert main([*command, "--outdir", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"outdir": "m", "frames": 7, "keys": 3}
    path = load_latents("m/morph_w.npz")
    torch.testing.assert_close(path[::3][1:2], from_seed(generator, 2))
    with av.open("m/morph.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 7
    assert Image.open("m/strip.png").width > 7 * 64
    assert main(["morph", "seed:1", "seed:2", "--steps", "2", "--space", "w", "--loop"]) == 0
    assert load_latents("morph-out/morph_w.npz").shape[0] == 4


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["mix", "seed:1", "seed:2"], 2, "rows: give --rows"),
        (["mix", "seed:1", "seed:2", "--recipe", "stile"], 2, "did you mean 'style'"),
        (["mix", "seed:1", "seed:2", "--recipe", "style", "--rows", "1"], 2, "brings its own"),
        (["mix", "seed:1", "seed:2", "--rows", "99"], 2, "rows"),
        (["mix", "seed:9-1", "seed:2", "--rows", "1"], 2, "original: expected 1 to 1000 seeds"),
        (["mix", "seed:1", "nothing", "--rows", "1"], 2, "donor: expected seed:7"),
        (["mix", "seed:1", "gone.npz", "--rows", "1"], 5, "gone.npz"),
        (["mix", "seed:1", "bad.npz", "--rows", "1"], 5, "bad.npz"),
        (["morph", "seed:1"], 2, "K >= 2"),
        (["morph", "seed:1-2", "--space", "v"], 2, "space"),
        (["morph", "seed:1-2", "--method", "round"], 2, "method"),
        (["morph", "seed:1-2", "--fps", "0"], 2, "fps"),
        (["morph", "seed:1-2", "--network", "gone.pkl"], 4, "gone.pkl"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    words: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(folder / "bad.npz", w=np.zeros((1, 3, 5), np.float32))
    assert main(arguments) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(folder.glob("*-out"))
