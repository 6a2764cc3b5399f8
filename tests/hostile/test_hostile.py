"""Every hand-made hostile file is refused by name, cheaply, and nothing in it runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from pyfacelat.checkpoints import write_safetensors
from tests.checkpoints.conftest import plain, small_generator

from . import archives, pickles
from .sandbox import MEMORY, Sandbox

CANARY = Path("/nonexistent")  # only the names are needed while tests are collected


def corpus(canary: Path, valid: bytes = b"", config: Any = None) -> dict[str, bytes]:
    """File name -> content."""
    out: dict[str, bytes] = {}
    for made in (pickles.executing(canary), pickles.exhausting(), pickles.malformed()):
        out |= {f"{name}.pkl": data for name, data in made.items()}
    out |= {f"{name}.pt": data for name, data in archives.torch_files(canary).items()}
    if valid:
        made = archives.safetensors_files(config, valid)
        out |= {f"{name}.safetensors": data for name, data in made.items()}
    out |= archives.numpy_files(canary)
    return out


@pytest.fixture(scope="module")
def files(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every file of the corpus, written and loaded once: name -> (path, outcome)."""
    folder = tmp_path_factory.mktemp("hostile")
    net = small_generator(img_resolution=8)
    write_safetensors(folder / "valid", "stylegan2-generator", plain(net.config), net.state_dict())
    content = corpus(sandbox.canary, (folder / "valid").read_bytes(), plain(net.config))
    paths = {name: folder / name for name in content}
    for name, data in content.items():
        paths[name].write_bytes(data)
    # One child each for the files that try to exhaust it, so that memory is told apart.
    alone = {f"{name}.pkl" for name in pickles.exhausting()}
    cheap = [name for name in content if name not in alone]
    batches = [[name] for name in alone] + [cheap[i : i + 25] for i in range(0, len(cheap), 25)]
    out = {}
    for batch in batches:
        outcomes = sandbox([paths[name] for name in batch])
        executed = sandbox.canary.exists()
        sandbox.canary.unlink(missing_ok=True)
        assert len(outcomes) == len(batch), (batch, outcomes[-1])
        for name, outcome in zip(batch, outcomes, strict=True):
            out[name] = (paths[name], {**outcome, "canary": executed})
    return out


def test_every_file_is_refused(files: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    assert len(files) >= 250
    problems = []
    for name, (path, found) in files.items():
        named = found["file"] == str(path) and found["reason"] and str(path) in found["message"]
        if found["canary"]:
            problems.append(f"{name}: it, or a neighbour, was executed")
        elif found["outcome"] != "CheckpointError" or not named:
            problems.append(f"{name}: {found['outcome']} {found['message'][:200]}")
        elif found["seconds"] > 10 or found["mb"] > MEMORY >> 20:
            problems.append(f"{name}: {found['seconds']:.1f} s, {found['mb']:.0f} MB")
        elif not found["message"].isprintable() or len(found["message"]) > 1000:
            problems.append(f"{name}: message {found['message'][:200]!r}")
    assert not problems, "\n".join(problems)


REASONS = {
    "tensorflow_era.pkl": "TensorFlow era",
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
    import re

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
def test_things_that_are_no_files(suffix: str, sandbox: Sandbox, tmp_path: Path) -> None:
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
    for path in (fifo, folder, empty, zero, sparse):
        (found,) = sandbox([path])
        assert found["outcome"] == "CheckpointError", (path, found)
        assert found["file"] == str(path)
        assert found["seconds"] < 5 and found["mb"] < 100
    (found,) = sandbox([gone])
    assert found["outcome"] in ("MissingWeightsError", "FileNotFoundError")
    (found,) = sandbox([loop])
    assert found["outcome"] in ("CheckpointError", "MissingWeightsError")
