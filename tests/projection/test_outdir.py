"""Locks, states, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyfacelat.errors import CheckpointError, ConfigError, OutdirBusyError
from pyfacelat.files import write_atomically
from pyfacelat.projection.outdir import Outdir, fingerprint


def lock(folder: Path, pid: int, host: str | None = None) -> None:
    holder = {"pid": pid, "host": host or socket.gethostname()}
    (folder / ".pyfacelat.lock").write_text(json.dumps(holder))


def test_lock_is_released(tmp_path: Path) -> None:
    with Outdir(tmp_path / "a" / "b"), pytest.raises(OutdirBusyError), Outdir(tmp_path / "a" / "b"):
        pass
    with Outdir(tmp_path / "a" / "b"):
        pass


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    lock(tmp_path, child.pid)
    with Outdir(tmp_path):
        pass


def test_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    lock(tmp_path, 1, "elsewhere")
    with pytest.raises(OutdirBusyError), Outdir(tmp_path):
        pass


def test_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="outdir"), Outdir(tmp_path / "file"):
        pass


def test_state_round_trip(tmp_path: Path) -> None:
    state = {"a": torch.arange(5.0), "b": torch.tensor(3)}
    with Outdir(tmp_path) as folder:
        assert folder.load_state("me") is None
        folder.save_state(state, "me")
        found = folder.load_state("me")
        assert found is not None and torch.equal(found["a"], state["a"]) and int(found["b"]) == 3
        with pytest.raises(CheckpointError, match="other inputs"):
            folder.load_state("you")
        folder.clear_state()
        assert folder.load_state("me") is None


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_every_damage_is_noticed(damage: str, tmp_path: Path) -> None:
    """Every 7th byte of a state is changed, or the last: the state before is taken."""
    with Outdir(tmp_path) as folder:
        for value in (1.0, 2.0):
            folder.save_state({"a": torch.full((40,), value), "b": torch.tensor(3)}, "me")
        path = tmp_path / "state.safetensors"
        whole = path.read_bytes()
        for at in range(0, len(whole), 7):
            changed = bytes([whole[at] ^ 0x10])
            path.write_bytes(
                whole[:at] + (changed + whole[at + 1 :] if damage == "flipped" else b"")
            )
            with pytest.warns(UserWarning, match=r"damaged.*going on from state\.previous"):
                found = folder.load_state("me")
            assert found is not None and found["a"][0] == 1.0
        (tmp_path / "state.previous.safetensors").write_bytes(b"")
        with pytest.raises(CheckpointError, match="state.safetensors: damaged"):
            folder.load_state("me")


def test_fingerprint_tells_all_parts_apart() -> None:
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    parts = ["a", "b", None, torch.zeros(2), torch.zeros(1, 2), torch.zeros(2).double(), one, two]
    assert len({fingerprint(part) for part in parts}) == len(parts)
    assert fingerprint("a", "b") != fingerprint("ab") != fingerprint("b", "a")
    assert fingerprint(one) == fingerprint(one)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "001").mkdir()
    left = [tmp_path / ".pyfacelat-00ff.tmp", tmp_path / "001" / ".pyfacelat-00ff.tmp"]
    kept = [tmp_path / "photo.tmp", tmp_path / ".tmp-of-someone-else"]
    for path in (*left, *kept):
        path.touch()
    with Outdir(tmp_path):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
