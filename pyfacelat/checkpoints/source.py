"""One file as bytes in memory, with what its reader may spend.

Every parser of this package works on a `Source`: it knows the name for error messages and carries
the budget that keeps time and memory proportional to the size of the file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import NoReturn

from pyfacelat.errors import CheckpointError

__all__ = ["MAX_FILE_BYTES", "Budget", "Source", "shown"]

# The largest file that is read at all. Network files are well under 1 GB; a training checkpoint
# with optimiser state may reach a few.
MAX_FILE_BYTES = 8 << 30

# A 1024-px file with G, D, G_ema and augmentation takes about 50,000 opcodes. A million of the
# most expensive ones take about a second and 250 MB.
MAX_OPCODES = 1_000_000


def shown(value: object, limit: int = 80) -> str:
    """Short, printable form of a value from a file: no control characters, no long text.

    Only str, int, float, bool and None are formatted; for anything else the type is named, because
    the repr of a shared nested structure can be exponentially long.
    """
    if isinstance(value, str):
        cut = value[:limit]
        return ascii(cut) + ("..." if len(value) > limit else "")
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return (
            repr(value) if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"
        )
    return f"a {type(value).__name__}"


class Budget:
    """What is left of the allowance of one file.

    Attributes:
        opcodes: pickle opcodes that may still run, in the file and all streams inside it.
        copied: bytes that may still be copied out of the file (decoded text, tensor data).
    """

    __slots__ = ("copied", "opcodes")

    def __init__(self, file_bytes: int) -> None:
        self.opcodes = MAX_OPCODES
        # In an honest file tensors do not overlap and bytes stored as text (protocol 2) are decoded
        # once: every byte is copied at most twice.
        self.copied = 2 * file_bytes + 65536


class Source:
    """The bytes of a checkpoint file and the name they go by.

    Args:
        name: the file as the caller named it, for messages.
        data: its content; kept as it is, never written to.
        values: False makes every tensor read from here one on the device "meta": name, shape and
            dtype are checked as always, its data is neither copied nor looked at.
    """

    __slots__ = ("budget", "data", "name", "values")

    def __init__(self, name: object, data: bytes | bytearray, *, values: bool = True) -> None:
        self.name = str(name)
        self.data = memoryview(data).toreadonly()
        self.budget = Budget(len(data))
        self.values = values

    def fail(self, reason: str, place: str = "") -> NoReturn:
        """Raise the `CheckpointError` of this file."""
        raise CheckpointError(self.name, reason, place)

    def spend_copied(self, count: int, place: str) -> None:
        """Account for `count` bytes copied out of the file, before they are.

        Raises:
            CheckpointError: more would be copied than the file holds.
        """
        self.budget.copied -= count
        if self.budget.copied < 0:
            self.fail(
                f"its contents would take more memory than the file's {len(self.data)} bytes "
                "(the same bytes are used again and again)",
                place,
            )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_FILE_BYTES,
        values: bool = True,
    ) -> Source:
        """Read a regular file whole.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is not a regular file, cannot be read, is empty, or is larger than
                `max_bytes`.
        """
        name = os.fspath(path)
        try:
            # O_NONBLOCK: opening a fifo must not wait for a writer. The kind is checked on the
            # open file, so that it cannot change between check and use.
            fd = os.open(Path(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise CheckpointError(name, f"cannot be opened: {why}") from None
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_closing(fd))
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(name, "is not a regular file")
            size = status.st_size
            if size == 0:
                raise CheckpointError(name, "is empty")
            if size > max_bytes:
                raise CheckpointError(name, f"has {size} bytes, more than the limit of {max_bytes}")
            data = bytearray(size)
            done = 0
            while done < size:
                count = os.readv(file, [memoryview(data)[done:]])
                if count == 0:
                    raise CheckpointError(name, f"ended after {done} of {size} bytes")
                done += count
        return cls(name, data, values=values)


@contextlib.contextmanager
def _closing(fd: int):  # type: ignore[no-untyped-def]
    try:
        yield fd
    finally:
        os.close(fd)
