"""Files of landmarks are files from strangers too: every bad one is a LandmarkError, and cheap."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.forkserver import ForkServer

from .assembler import P2, STOP, call, ref, text
from .numpy_files import npy, npz

FORM = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n"


def files(canary: Path) -> dict[str, bytes]:
    """File name -> content."""
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).random((68, 2)) * 50)
    good = buffer.getvalue()
    shell = P2 + call(ref("posix", "system"), text(f"touch {canary}")) + STOP
    huge = npy(FORM.format("<f8", "(9000000, 2)"), bytes(144_000_000))
    return {
        "pickle.npy": shell,
        "objects.npy": npy(FORM.format("|O", "(1,)"), shell),
        "code.npy": npy("__import__('os').abort()\n", b""),
        "brackets.npy": npy("(" * 900 + "\n", b""),
        "open_string.npy": npy("{'descr': '''\n", b""),
        "huge_shape.npy": npy(FORM.format("<f8", f"({1 << 40}, 2)"), bytes(16)),
        "wraps.npy": npy(FORM.format("<f8", f"({1 << 32}, {1 << 32})"), bytes(16)),
        "short.npy": good[:-1],
        "text.npy": npy(FORM.format("<U1", "(68, 2)"), bytes(544)),
        "structured.npy": npy(
            "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (68,), }\n", bytes(544)
        ),
        "archive.npy": npz({"landmarks.npy": good}),
        "other_name.npz": npz({"w.npy": good}),
        "pickle.npz": npz({"landmarks.npy": shell}),
        "bomb.npz": npz({"landmarks.npy": huge}, zipfile.ZIP_DEFLATED),
        "half.npz": npz({"landmarks.npy": good})[:200],
        "flipped.npz": npz({"landmarks.npy": good}).replace(b"NUMPY", b"NUMPX"),
        "encrypted.npz": npz({"landmarks.npy": good}).replace(
            b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"
        ),
        "nothing.npz": b"",
        "deep.json": b"[" * 100_000,
        "digits.json": b"[" + b"9" * 100_000 + b"]",
        "not_json.json": b"\xff\xfe",
        "ragged.json": json.dumps([[1, 2], [3]] * 34).encode(),
        "words.json": json.dumps([["a", "b"]] * 68).encode(),
        "not_finite.json": b"[" + b"[NaN, 1]," * 67 + b"[1, 1]]",
        "side.json": json.dumps({"size": -1, "points": [[1, 2]] * 68}).encode(),
        "no_points.json": b"{}",
        "too_few.pts": b"version: 1\n{\n1 2\n}\n",
        "binary.pts": bytes(range(256)),
        "long.txt": b"1 " * 500_000,
        "too_large.txt": b"1 2\n" * 5_000_000,
    }


def test_every_bad_file_is_refused(
    sandbox: ForkServer, tmp_path: Path, tally: Callable[[str, int], None]
) -> None:
    canary = tmp_path / "canary"
    made = files(canary)
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    names = [*made, "pipe.json", "folder.npz", "absent.pts"]
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.npz").mkdir()
    answer = sandbox("points", paths=[str(tmp_path / name) for name in names])
    assert len(answer.values) == len(names), (names[len(answer.values)], answer)
    for name, found in zip(names, answer.values, strict=True):
        assert found["outcome"] == "LandmarkError" and not found["seen"], (name, found)
        assert name in found["message"] and found["message"].isprintable(), (name, found)
        assert found["seconds"] < 10 and found["mb"] < 300, (name, found)
    assert not canary.exists()
    tally("bad files of landmarks", len(names))
