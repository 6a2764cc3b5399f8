"""The output folder of one run: locked while it runs, with a state to resume from."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pyfacelat.errors import CheckpointError, ConfigError, OutdirBusyError
from pyfacelat.files import write_atomically
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.config import ProjectionConfig

_LOCK = ".pyfacelat.lock"
_STATE = "state.safetensors"


class Outdir:
    """Context manager that creates and locks a folder.

    The lock names a process and a host; one left by a process of this host that is gone is taken
    over.

    Raises:
        OutdirBusyError: another run holds the lock.
        ConfigError: the path cannot be a folder.

    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Outdir:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"outdir: {self.path}: cannot be made: {error.strerror}") from None
        me = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        for _ in range(2):
            try:
                handle = os.open(self.path / _LOCK, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._clear_stale_lock()
                continue
            with os.fdopen(handle, "w") as file:
                file.write(me)
            return self
        raise OutdirBusyError(f"outdir: {self.path}: another run writes to it")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (self.path / _LOCK).unlink(missing_ok=True)

    def identity(
        self, config: ProjectionConfig, generator: Generator, look: Tensor, maps: Tensor
    ) -> str:
        """A hash of all that decides a run; a state of another run must not be continued."""
        digest = hashlib.sha256(config.to_json().encode())
        for tensor in (look, maps, *generator.state_dict().values()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save_state(self, tensors: dict[str, Tensor], identity: str) -> None:
        """Write the state under a temporary name, flush it to disk, and rename it."""
        content = save(tensors, metadata={"identity": identity})
        write_atomically(self.path / _STATE, content)

    def load_state(self, identity: str) -> dict[str, Tensor] | None:
        """The saved state, or None if there is none.

        Raises:
            CheckpointError: the file is damaged, or belongs to another run.

        """
        path = self.path / _STATE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                found = (file.metadata() or {}).get("identity")
                if found != identity:
                    raise CheckpointError(
                        path, "belongs to a run with other inputs, networks or settings"
                    )
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(path, f"damaged: {error}") from None

    def clear_state(self) -> None:
        """Remove the state of a run that is complete."""
        (self.path / _STATE).unlink(missing_ok=True)

    def _clear_stale_lock(self) -> None:
        lock = self.path / _LOCK
        try:
            holder = json.loads(lock.read_text())
            pid, host = int(holder["pid"]), str(holder["host"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            return  # being written just now, or not ours: leave it to its owner
        if host == socket.gethostname() and not _alive(pid):
            lock.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
