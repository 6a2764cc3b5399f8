"""Small valid files of every format, and seeded mutations of them."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import torch

from pyfacelat import latents
from pyfacelat.checkpoints import write_safetensors
from tests.checkpoints.conftest import plain, small_generator
from tests.checkpoints.nvidia_writer import NvidiaFile

from . import torch_archives

SUFFIXES = {
    "pkl": ".pkl",
    "torch zip": ".pt",
    "torch legacy": ".pt",
    "safetensors": ".safetensors",
    "npz": ".npz",
    "npy": ".npy",
}
SEED = 20


def bases() -> dict[str, list[bytes]]:
    """Valid files by format."""
    net = small_generator(img_resolution=8, z_dim=4, w_dim=4, channel_max=4)
    network = {"G_ema": ("generator", net)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.safetensors"
        write_safetensors(path, "stylegan2-generator", plain(net.config), net.state_dict())
        native = path.read_bytes()
        latents.save_latents(Path(folder) / "w.npz", torch.randn(1, 4, 8))
        archive = (Path(folder) / "w.npz").read_bytes()
    packed = io.BytesIO()
    np.savez_compressed(packed, w=np.ones((1, 14, 64), np.float32), more=np.zeros((2, 3)))
    return {
        "pkl": [NvidiaFile(protocol).dump(network) for protocol in (2, 3, 4, 5)],
        "torch zip": [torch_archives.zipped()],
        "torch legacy": [torch_archives.legacy()],
        "safetensors": [native],
        "npz": [archive, packed.getvalue()],
        "npy": [
            _npy(np.linspace(-1, 1, 32, dtype=dtype).reshape(1, 4, 8, order=order))
            for dtype, order in (("<f4", "C"), ("<f8", "F"), ("<f2", "C"))
        ],
    }


def mutation(valid: list[bytes], index: int) -> bytes:
    """Mutation number `index`: one to three edits of one of the files, the same every time."""
    random = np.random.default_rng([SEED, index])
    return mutate(valid[index % len(valid)], random)


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


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
