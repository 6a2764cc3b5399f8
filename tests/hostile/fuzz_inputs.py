"""Inputs of the fuzzer: how their bytes become a file, and those it starts from.

The first byte of an input says what the rest is, because a checksum or a length in a container
would hide what it holds from blind mutation: a whole file, the pickle of a torch.save archive, the
object of a legacy stream, a storage inside of an NVIDIA pickle, or the array of an npz.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from pyfacelat.checkpoints import Source, read_source
from pyfacelat.checkpoints.arrays import read_arrays
from pyfacelat.errors import CheckpointError

from . import mutations, numpy_files, pickles, torch_archives
from .assembler import P2, STOP, call, file_with, mapping, module, raw, ref, state, stream, tensor

CORPUS = Path(__file__).with_name("corpus")


def _storage(data: bytes) -> bytes:
    held = call(ref("torch.storage", "_load_from_bytes"), raw(data))
    return file_with(module(state(parameters=mapping(w=tensor(held)))))


_CONTAINERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"f": lambda data: data,
    b"z": torch_archives.zipped,
    b"l": lambda data: stream(data, bytes(16), numel=4),
    b"s": _storage,
    b"a": lambda data: numpy_files.npz({"w.npy": data}),
}


def read(data: bytes) -> int:
    """Give an input to the reader of weights and to that of arrays; how many refused it."""
    content = _CONTAINERS.get(data[:1], _CONTAINERS[b"f"])(data[1:])
    refused = 0
    for reader in (read_source, read_arrays):
        try:
            reader(Source("fuzzed", content))
        except CheckpointError as error:
            assert "more memory than there is" not in str(error)
            refused += 1
    return refused


def seeds() -> list[bytes]:
    """Small valid files, and hand-made hostile ones."""
    out = [b"f" + data for valid in mutations.bases().values() for data in valid[:2]]
    out += [b"z" + P2 + torch_archives.state_dict() + STOP]
    canary = Path("/nonexistent/canary")
    made = {**pickles.executing(canary), **pickles.malformed()}
    out += [b"f" + data for data in made.values() if len(data) < 600]
    out += [b"z" + data for data in list(made.values())[::4] if len(data) < 600]
    arrays = numpy_files.numpy_files(canary)
    return out + [b"a" + data for name, data in arrays.items() if name.endswith("py")][::3]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
