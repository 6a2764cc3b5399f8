"""Every hand-made hostile file is refused by name, cheaply, and nothing in it runs.

The contract that the README prints is held here and in the two files beside this one: time and
memory in proportion to the file, and at most 10 seconds and 600 MB for any of these.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyfacelat.checkpoints import write_safetensors
from tests.checkpoints.conftest import plain, small_generator
from tests.forkserver import ForkServer

from . import numpy_files, pickles, safetensors_files, torch_archives
from .sandbox import MEMORY, complaint

CANARY = Path("/nonexistent")  # only the names are needed while tests are collected


def corpus(canary: Path, valid: bytes = b"", config: Any = None) -> dict[str, bytes]:
    """File name -> content."""
    out: dict[str, bytes] = {}
    for made in (pickles.executing(canary), pickles.exhausting(), pickles.malformed()):
        out |= {f"{name}.pkl": data for name, data in made.items()}
    for made in (
        torch_archives.torch_files(canary),
        torch_archives.torch_disguises(canary, pickles.exhausting()),
    ):
        out |= {f"{name}.pt": data for name, data in made.items()}
    if valid:
        made = safetensors_files.safetensors_files(config, valid)
        out |= {f"{name}.safetensors": data for name, data in made.items()}
    out |= numpy_files.numpy_files(canary)
    return out


@pytest.fixture(scope="module")
def files(
    sandbox: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every file of the corpus, written and loaded once: name -> (path, outcome)."""
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    net = small_generator(img_resolution=8)
    write_safetensors(folder / "valid", "stylegan2-generator", plain(net.config), net.state_dict())
    content = corpus(canary, (folder / "valid").read_bytes(), plain(net.config))
    paths = {name: folder / name for name in content}
    for name, data in content.items():
        paths[name].write_bytes(data)
    # One child each for the files that try to exhaust it, so that memory is told apart.
    alone = {f"{name}.pkl" for name in pickles.exhausting()}
    cheap = [name for name in content if name not in alone]
    batches = [[name] for name in alone] + [cheap[i : i + 25] for i in range(0, len(cheap), 25)]
    out = {}
    for batch in batches:
        answer = sandbox("read", paths=[str(paths[name]) for name in batch])
        executed = canary.exists()
        canary.unlink(missing_ok=True)
        assert len(answer.values) == len(batch), (batch[len(answer.values)], answer)
        for name, outcome in zip(batch, answer.values, strict=True):
            out[name] = (paths[name], {**outcome, "canary": executed})
    return out


def test_every_file_is_refused(
    files: dict[str, tuple[Path, dict[str, Any]]], tally: Callable[[str, int], None]
) -> None:
    problems = []
    for name, (path, found) in files.items():
        if found["canary"]:
            problems.append(f"{name}: it, or a neighbour, was executed")
        wrong = complaint(str(path), found, megabytes=MEMORY >> 20, refused=True)
        if wrong:
            problems.append(f"{name}: {wrong}")
    assert not problems, "\n".join(problems)
    for suffix, least in ((".pkl", 150), (".pt", 120), (".safetensors", 60), (".np", 90)):
        count = sum(path.suffix.startswith(suffix) for path, _ in files.values())
        assert count >= least, (suffix, count)
        tally(f"hand-made hostile {suffix.replace('.np', '.npz and .npy')} files", count)


REASONS = {
    "tensorflow_era.pkl": "Gs: its variables are no list",
    "stylegan3.pkl": "StyleGAN3",
    "pti.pt": "without the fields that NVIDIA",
    "rosinality.pt": "rosinality",
    "rosinality_training.pt": "rosinality",
    "e4e.pt": "e4e",
    "zip_torchscript.pt": "TorchScript",
    "whole_module.pt": "state_dict",
    "tar.pt": "tar archive",
    "web_page.pkl": "web page",
    "lfs_pointer.pkl": "LFS",
    "gzip.pkl": "gzip",
    "dotted_name.pkl": "os.system",
    "stride_zero.pkl": "in a storage of 4",
    "memo_array.pkl": "holds None",
    "hash_shared_tuple.pkl": "key",
    "shared_modules.pkl": "more modules",
    "own_submodule.pkl": "more modules",
    "encode_again.pkl": "again and again",
    "million_dicts.pkl": "opcodes",
    "zip_flipped_data.pt": "checksum",
    "zip_two_pickles.pt": "two members",
    "zip_overlap.pt": "overlap|local header",
    "config_unknown.safetensors": "unknown field",
    "entries_hide_pickle.safetensors": "belong to no tensor",
    "header_duplicate.safetensors": "twice",
    "bomb.npz": "expand",
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons(name: str, files: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    assert re.search(REASONS[name], files[name][1]["message"]), files[name][1]["message"]


def test_the_attacks_are_live(tmp_path: Path) -> None:
    """Under an unrestricted unpickler the canary sings: the corpus tests something."""
    live = 0
    for name in ("system", "system_stack_global", "eval", "dotted_name", "storage_stream"):
        canary = tmp_path / name
        data = pickles.executing(canary)[name]
        if name == "dotted_name":
            import torch.serialization  # noqa: F401
        pid = os.fork()
        if pid == 0:
            try:
                pickle.loads(data)  # the victim
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        live += canary.exists()
    assert live >= 4


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".safetensors", ".npz"])
def test_things_that_are_no_files(suffix: str, sandbox: ForkServer, tmp_path: Path) -> None:
    fifo, folder, empty = (tmp_path / f"{n}{suffix}" for n in ("fifo", "folder", "empty"))
    loop, gone, zero = (tmp_path / f"{n}{suffix}" for n in ("loop", "gone", "zero"))
    os.mkfifo(fifo)
    folder.mkdir()
    empty.touch()
    loop.symlink_to(loop)
    zero.symlink_to("/dev/zero")
    sparse = tmp_path / f"sparse{suffix}"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    *refused, absent, looped = sandbox(
        "read", paths=[str(path) for path in (fifo, folder, empty, zero, sparse, gone, loop)]
    ).values
    for path, found in zip((fifo, folder, empty, zero, sparse), refused, strict=True):
        assert found["outcome"] == "CheckpointError", (path, found)
        assert found["file"] == str(path)
        assert found["seconds"] < 5 and found["mb"] < 100
    assert absent["outcome"] in ("MissingWeightsError", "FileNotFoundError")
    assert looped["outcome"] in ("CheckpointError", "MissingWeightsError")
