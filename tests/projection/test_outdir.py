"""Locks, states, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pyfacelat.errors import CheckpointError, ConfigError, OutdirBusyError
from pyfacelat.files import write_atomically
from pyfacelat.projection.outdir import Outdir


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


def test_state_round_trip_and_damage(tmp_path: Path) -> None:
    state = {"a": torch.arange(5.0), "b": torch.tensor(3)}
    with Outdir(tmp_path) as folder:
        assert folder.load_state("me") is None
        folder.save_state(state, "me")
        found = folder.load_state("me")
        assert found is not None and torch.equal(found["a"], state["a"]) and int(found["b"]) == 3
        with pytest.raises(CheckpointError, match="other inputs"):
            folder.load_state("you")
        path = tmp_path / "state.safetensors"
        whole = path.read_bytes()
        for size in range(0, len(whole), 31):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match="damaged"):
                folder.load_state("me")


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


def test_interrupted_program_exits_130_and_resumes(tmp_path: Path) -> None:
    """Ctrl-C on the real program, and a second run that goes on."""
    command = [sys.executable, "-m", "pyfacelat", "demo", "--outdir", str(tmp_path)]
    state = tmp_path / "state.safetensors"
    ready = tmp_path / ".pyfacelat.lock"
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 130, shown
    assert "interrupted" in shown and "Traceback" not in shown
    assert state.is_file() and not ready.exists()
    assert subprocess.run([*command, "--resume"]).returncode == 0
    assert (tmp_path / "proj.png").is_file() and not state.exists()
