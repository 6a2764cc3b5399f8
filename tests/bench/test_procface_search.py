"""The search for the presets' settings of motion."""

from __future__ import annotations

import pytest

from bench.procface import search_motion


def test_identity_s_say_keeps_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    rows = search_motion.main(["--pairs", "2", "--steps", "24", "--ranks", "20", "--keeps", "0,1"])
    take, keep = rows
    assert (take["keep"], keep["keep"], keep["rank"]) == (0.0, 1.0, 20.0)
    assert keep["psnr"] > take["psnr"] > 14
    assert keep["nme"] < take["nme"]
    assert len(capsys.readouterr().out.splitlines()) == 3
