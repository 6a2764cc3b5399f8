"""The bundled demo, on the bundled models: a face that keeps its look and follows the landmarks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyfacelat.cli import main
from pyfacelat.images import load_image
from pyfacelat.losses.colour import colour_distance, colour_slices


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    assert main(["demo", "--outdir", str(tmp_path)]) == 0
    assert time.perf_counter() - began < 90
    assert "strip.png" in capsys.readouterr().out
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["landmark_error"][0] < 0.06
    strip = np.asarray(Image.open(tmp_path / "strip.png"))
    assert strip.shape[0] >= 256 and strip.shape[1] > 4 * 256

    # The colours of skin, hair and background stay those of the look, wherever they move.
    look, result, pose = (
        colour_slices(load_image(tmp_path / f"{name}.png")[None])
        for name in ("target_look", "proj", "target_landmarks")
    )
    assert colour_distance(result, look) < 0.1 * colour_distance(pose, look)
