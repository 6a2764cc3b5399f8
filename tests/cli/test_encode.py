"""`pyfacelat encode` and `pyfacelat generate` on the sample models."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyfacelat.cli import main
from pyfacelat.latents import load_latents

LOOK = str(resources.files("pyfacelat") / "assets" / "look.png")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_l11_generate_then_encode(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--count", "2", "--outdir", "g", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"outdir": "g", "images": 2}
    assert np.load("g/wp.npy").shape[0] == 2
    assert main(["encode", "g/000000.png", "g/000001.png", LOOK, "--outdir", "e", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(row["image"]).name for row in told["images"]][:2] == ["000000.png", "000001.png"]
    assert all(row["psnr"] > 12 and not row["cropped"] for row in told["images"])
    assert load_latents("e/encoded_w.npz").shape[0] == 3
    assert Image.open("e/sheet.png").width >= 3 * 128 and Path("e/002.png").exists()


def test_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "nothing.png"]) == 5
    assert main(["encode", LOOK, "--encoder", "nothing.pt"]) == 4
    assert main(["encode", LOOK, "--align", "perhaps"]) == 2
    assert main(["generate", "--count", "0"]) == 2
    capsys.readouterr()
