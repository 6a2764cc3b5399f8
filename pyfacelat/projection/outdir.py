"""The output folder of one run: locked while it runs, with a state to resume from.

Two states are kept, the newest and the one before, so that one which a disk damaged costs seconds
and not the run. A state carries a digest of all it holds and the identity of its run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import safetensors.torch
import torch
from torch import Tensor, nn

from pyfacelat.errors import CheckpointError, ConfigError, OutdirBusyError
from pyfacelat.files import TEMPORARY, write_atomically

_LOCK = ".pyfacelat.lock"
_STATE = "state.safetensors"
_PREVIOUS = "state.previous.safetensors"


class Outdir:
    """Context manager that creates and locks a folder.

    The kernel holds the lock (flock) and lets go of it when the process ends, however it ends; the
    lock's file says who has it. What a killed run left half written is removed.

    Raises:
        OutdirBusyError: another run holds the lock.
        ConfigError: the path cannot be a folder, or not be written to.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Outdir:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._acquire()
        except OSError as error:
            if isinstance(error, OutdirBusyError):
                raise
            raise ConfigError(f"outdir: {self.path}: cannot be used: {error.strerror}") from None
        for pattern in (TEMPORARY, f"[0-9][0-9][0-9]/{TEMPORARY}"):
            for leftover in self.path.glob(pattern):
                leftover.unlink(missing_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._lock is not None
        # While the lock is still held: afterwards the name may belong to another run.
        (self.path / _LOCK).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def save_state(self, tensors: dict[str, Tensor], identity: str) -> None:
        """Write the state as the newest one, and keep the one before.

        Raises:
            OSError: it cannot be written; the states that are there stay.
        """
        about = {"identity": identity, "digest": _digest(tensors, identity)}
        content = safetensors.torch.save(tensors, metadata=about)
        write_atomically(self.path / _STATE, content, keep=self.path / _PREVIOUS)

    def try_save_state(self, tensors: dict[str, Tensor], identity: str) -> None:
        """`save_state`, with a warning when the disk is full: what runs in memory goes on."""
        try:
            self.save_state(tensors, identity)
        except OSError as error:
            warnings.warn(
                f"outdir: {self.path}: the state cannot be saved: {error.strerror}; "
                "the run cannot be resumed from here",
                stacklevel=2,
            )

    def load_state(self, identity: str) -> dict[str, Tensor] | None:
        """The newest whole state, or None if there is none at all.

        Warns when the newest is damaged and the one before is taken.

        Raises:
            CheckpointError: all that is there is damaged, or belongs to another run.
        """
        damage: CheckpointError | None = None
        for path in (self.path / _STATE, self.path / _PREVIOUS):
            try:
                state = _read_state(path, identity)
            except FileNotFoundError:
                continue
            except _Damaged as error:
                damage = damage or error
                continue
            if damage is not None:
                warnings.warn(
                    f"{damage}; going on from {path.name}, the state before", stacklevel=2
                )
            return state
        if damage is not None:
            raise damage
        return None

    def clear_state(self) -> None:
        """Remove the states of a run that is complete."""
        for name in (_STATE, _PREVIOUS):
            (self.path / name).unlink(missing_ok=True)

    def _acquire(self) -> int:
        """The lock's open file, held."""
        path = self.path / _LOCK
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._hold(handle)
                # Its last holder may have removed the file between our opening and locking it.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), os.stat(path)):
                        self._sign(handle)
                        return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _hold(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, host = _holder(handle) or ("unknown", "this host")
            raise OutdirBusyError(
                f"outdir: {self.path}: another run writes to it (process {pid} on {host})"
            ) from None
        except OSError as error:
            warnings.warn(
                f"outdir: {self.path}: its file system has no locks ({error.strerror}); make sure "
                "that no other run writes to it",
                stacklevel=4,
            )

    def _sign(self, handle: int) -> None:
        """Write who we are, unless a process elsewhere did: locks may not reach other hosts."""
        here = socket.gethostname()
        pid, host = _holder(handle) or (0, here)
        if host != here:
            raise OutdirBusyError(
                f"outdir: {self.path}: another run writes to it (process {pid} on {host}); "
                f"if that one is gone, remove {_LOCK}"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)


@contextlib.contextmanager
def open_outdir(path: str | os.PathLike[str] | None) -> Iterator[Outdir | None]:
    """The locked folder at `path`, or None where no folder is wanted."""
    if path is None:
        yield None
        return
    with Outdir(Path(path)) as folder:
        yield folder


def fingerprint(*parts: str | Tensor | nn.Module | None) -> str:
    """A hash of texts, tensors and the weights of modules, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            part = _digest(part.state_dict(), type(part).__name__)
        if isinstance(part, Tensor):
            part = _digest({"": part}, "")
        digest.update(f"\0{part}".encode())
    return digest.hexdigest()


class _Damaged(CheckpointError):
    """A state that is not what was written."""


def _holder(handle: int) -> tuple[object, str] | None:
    """Process and host in the lock's file; None where there are none."""
    try:
        found = json.loads(os.pread(handle, 1000, 0))
        return int(found["pid"]), str(found["host"])
    except (ValueError, KeyError, TypeError):
        return None


def _digest(tensors: Mapping[str, Tensor], identity: str) -> str:
    """A hash of every name, type, shape and value, and of whose they are."""
    digest = hashlib.sha256(identity.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # numpy has no bfloat16
    return digest.hexdigest()


def _read_state(path: Path, identity: str) -> dict[str, Tensor]:
    """The tensors of one state file.

    Raises:
        FileNotFoundError: there is none.
        _Damaged: it is not what was written.
        CheckpointError: it is whole, and belongs to another run.
    """
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        about = json.loads(content[8 : 8 + length])["__metadata__"]
        owner, digest = str(about["identity"]), about["digest"]
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(path, f"damaged: {error}") from None
    if _digest(tensors, owner) != digest:
        raise _Damaged(path, "damaged: its content does not have the digest it was written with")
    if owner != identity:
        raise CheckpointError(path, "belongs to a run with other inputs, networks or settings")
    return tensors
