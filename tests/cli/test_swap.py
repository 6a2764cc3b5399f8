"""`pyfacelat swap` on the sample models."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from pyfacelat.cli import main

ASSETS = resources.files("pyfacelat") / "assets"
FACES = [str(ASSETS / "look.png"), str(ASSETS / "landmarks.png")]


def test_swap_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["swap", *FACES, "--steps", "8", "--outdir", "one", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["to_person"] > told["to_person_before"]
    assert Path("one/proj.png").exists() and Path("one/target_person.png").exists()
    assert main(["swap", *FACES, "--table", "--steps", "1", "--outdir", "all"]) == 0
    assert Path("all/table.html").exists() and Path("all/001_000.png").exists()
    assert main(["swap", FACES[0]]) == 2
    assert main(["swap", *FACES, "--recipe", "bold"]) == 2
    assert main(["swap", *FACES, "--table", "--resume"]) == 2
