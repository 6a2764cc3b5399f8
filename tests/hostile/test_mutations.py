"""Seeded mutations of valid files: each is read, or refused as CheckpointError; nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pyfacelat import latents
from pyfacelat.checkpoints import write_safetensors
from tests.checkpoints.conftest import plain, small_generator
from tests.checkpoints.nvidia_writer import NvidiaFile

from . import archives
from .sandbox import MEMORY, Sandbox

COUNT = 320
BATCH = 80


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """One to three edits, biased towards the structured ends of a file."""
    out = bytearray(data)
    for _ in range(random.integers(1, 4)):
        span = len(out) if random.random() < 0.5 else min(len(out), 4096)
        at = int(random.integers(0, span))
        if random.random() < 0.25:
            at = len(out) - 1 - at
        kind = random.integers(0, 8)
        if kind == 0:
            out[at] ^= 1 << random.integers(0, 8)
        elif kind == 1:
            out[at] = random.integers(0, 256)
        elif kind == 2:
            out[at : at + 4] = random.bytes(4)
        elif kind == 3:
            out[at : at + 8] = b"\xff" * 8
        elif kind == 4:
            del out[at : at + int(random.integers(1, 40))]
        elif kind == 5:
            out[at:at] = out[at : at + int(random.integers(1, 40))]
        elif kind == 6:
            del out[at:]
        else:
            other = int(random.integers(0, len(out)))
            out[at : at + 6] = out[other : other + 6]
        if not out:
            out = bytearray(b"\x80")
    return bytes(out)


def valid_files(folder: Path) -> dict[str, list[bytes]]:
    net = small_generator(img_resolution=8, z_dim=4, w_dim=4, channel_max=4)
    network = {"G_ema": ("generator", net)}
    write_safetensors(folder / "g", "stylegan2-generator", plain(net.config), net.state_dict())
    latents.save_latents(folder / "w.npz", torch.randn(1, 4, 8))
    latents.save_latents(folder / "w.npy", torch.randn(1, 4, 8))
    np.savez_compressed(folder / "c.npz", w=np.ones((1, 14, 64), np.float32))
    return {
        "pkl": [NvidiaFile(p).dump(network) for p in (2, 3, 4, 5)],
        "pt": [archives.zipped(), archives.legacy()],
        "safetensors": [(folder / "g").read_bytes()],
        "npz": [(folder / name).read_bytes() for name in ("w.npz", "w.npy", "c.npz")],
    }


@pytest.mark.parametrize("kind", ["pkl", "pt", "safetensors", "npz"])
def test_mutations(kind: str, sandbox: Sandbox, tmp_path: Path) -> None:
    bases = valid_files(tmp_path)[kind]
    for i, data in enumerate(bases):
        (tmp_path / f"valid{i}.{kind}").write_bytes(data)
        (found,) = sandbox([tmp_path / f"valid{i}.{kind}"])
        assert found["outcome"] == "ok", found
    random = np.random.default_rng(20)
    paths = []
    for i in range(COUNT):
        paths.append(tmp_path / f"{i}.{kind}")
        paths[-1].write_bytes(mutate(bases[i % len(bases)], random))
    problems, outcomes = [], {"ok": 0, "CheckpointError": 0}
    for start in range(0, COUNT, BATCH):
        batch = paths[start : start + BATCH]
        found = sandbox(batch)
        for path, result in zip(batch, found, strict=False):
            outcomes[result["outcome"]] = outcomes.get(result["outcome"], 0) + 1
            if result["outcome"] not in ("ok", "CheckpointError"):
                problems.append(f"{path.name}: {result['outcome']}: {result['message'][:300]}")
            elif result["outcome"] == "CheckpointError" and result["file"] != str(path):
                problems.append(f"{path.name}: names {result['file']}")
            elif result["seconds"] > 5 or result["mb"] > MEMORY >> 21:
                problems.append(f"{path.name}: {result['seconds']:.1f} s, {result['mb']:.0f} MB")
        assert len(found) == len(batch), found[-1]
    assert not sandbox.canary.exists()
    assert not problems, "\n".join(problems)
    assert outcomes["CheckpointError"] > COUNT // 3, outcomes
