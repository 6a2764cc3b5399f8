"""`pyfacelat generate`, then `pyfacelat train encoder`, then `pyfacelat encode` with the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfacelat import zoo
from pyfacelat.cli import main


def test_train_an_encoder_and_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--count", "6", "--outdir", "faces"]) == 0
    train = ["train", "encoder", "faces", "--size", "small", "--steps", "2", "--batch", "2"]
    capsys.readouterr()
    assert main([*train, "--outdir", "e4e", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"encoder": "e4e/encoder.safetensors"}
    log = [json.loads(line) for line in Path("e4e/log.jsonl").read_text().splitlines()]
    assert {"held_l2", "held_perceptual", "held_identity"} <= set(log[-1])
    assert zoo.load_any_encoder("e4e/encoder.safetensors").config.num_ws == 12
    encode = ["encode", "faces/000000.png", "--encoder", "e4e/encoder.safetensors"]
    assert main([*encode, "--outdir", "out"]) == 0
    assert Path("out/encoded_w.npz").exists()
    assert main([*train, "--kind", "image-to-latent", "--outdir", "e4e"]) == 2  # another run's
    assert "is a run of" in capsys.readouterr().err
    assert main(["train", "encoder", "nothing", "--outdir", "x"]) == 5
    assert main([*train, "--kind", "psp"]) == 2
