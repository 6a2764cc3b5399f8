"""The bundled demo, on the bundled models: a face that keeps its look and follows the landmarks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyfacelat.cli import main


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    assert main(["demo", "--outdir", str(tmp_path)]) == 0
    assert time.perf_counter() - began < 90
    assert "strip.png" in capsys.readouterr().out
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["landmark_error"][0] < 0.06
    strip = np.asarray(Image.open(tmp_path / "strip.png"))
    assert strip.shape[0] >= 256 and strip.shape[1] > 4 * 256

    look, result, pose = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), dtype=float)
        for name in ("target_look", "proj", "target_landmarks")
    )

    # The colours of skin, hair and background stay the look's.
    def colours(image: np.ndarray) -> np.ndarray:
        return image.reshape(8, 8, 8, 8, 3).mean((1, 3))

    kept = np.abs(colours(result) - colours(look)).mean()
    assert kept < 0.5 * np.abs(colours(pose) - colours(look)).mean()
