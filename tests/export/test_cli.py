"""`pyfacelat export fan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfacelat.cli import main
from pyfacelat.export.fan import read_options


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("PYFACELAT_HOME", str(cache))


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "loss.onnx"
    arguments = ["--what", "loss-and-gradient", "--batch", "2", "--dtype", "fp32", "--opset", "19"]
    arguments += ["--reduction", "l2", "--out", str(out)]
    assert main(["export", "fan", *arguments]) == 0
    shown = capsys.readouterr()
    assert "gradient   differs from torch by" in shown.out
    assert "comparing it with torch" in shown.err
    options, config = read_options(out)
    assert (options.what, options.batch, options.opset) == ("loss-and-gradient", 2, 19)
    assert (options.reduction, config.input_size) == ("l2", 128)
    assert main(["export", "fan", *arguments]) == 0
    assert "from the cache" in capsys.readouterr().out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "fan", "--out", str(tmp_path / "maps.onnx"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["path"] == str(tmp_path / "maps.onnx")
    assert answer["options"]["batch"] == "dynamic"
    assert answer["nodes"] > 100


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--what", "faces"], 2, "what: expected one of heatmaps, landmarks, loss-and-gradient"),
        (["--batch", "many"], 2, 'batch: expected an integer >= 1 or "dynamic"'),
        (["--opset", "9"], 2, "opset: expected an integer from 18 to 23, got 9"),
        (["--landmarker", "2dfan"], 4, "did you mean '2dfan4'?"),
    ],
)
def test_errors(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", "fan", "--out", str(tmp_path / "x.onnx"), *arguments]) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
