"""`pyfacelat gallery`, with few steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from pyfacelat.cli import main


def test_every_part_and_the_page(tmp_path: Path) -> None:
    assert main(["gallery", "--quick", "--out", str(tmp_path / "g")]) == 0
    page = (tmp_path / "g" / "gallery.html").read_text()
    pictures = re.findall(r'src="([^"]+\.jpg)"', page)
    assert len(pictures) == 8 and (tmp_path / "g" / "morph.mp4").stat().st_size > 1000
    for name in pictures:
        assert min(Image.open(tmp_path / "g" / name).size) >= 128


def test_some_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["gallery", "--quick", "--no-save-video", "--out", str(tmp_path)]
    assert main([*arguments, "--parts", "morph"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"morph.jpg", "gallery.html"}
    assert "<video" not in (tmp_path / "gallery.html").read_text()
    assert main([*arguments, "--parts", "morphs"]) == 2
    assert "parts: expected some of inversion" in capsys.readouterr().err
