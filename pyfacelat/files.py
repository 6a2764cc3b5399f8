"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".pyfacelat-*.tmp"
"""Pattern of the temporary names; what matches it is left over from a process that was killed."""


def temporary_name(path: str | os.PathLike[str]) -> Path:
    """A new hidden name beside `path`, for what is renamed to `path` when complete."""
    return Path(path).parent / TEMPORARY.replace("*", secrets.token_hex(6))


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str], *, keep: str | os.PathLike[str] | None = None
) -> Iterator[BinaryIO]:
    """A file to write to that becomes `path` when the block ends, on disk before it is renamed.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        keep: a name in the same folder that the file before gets; None drops it.

    Raises:
        OSError: the file (`filename`) cannot be written; what was there before is still there, and
            nothing else.
    """
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = os.fspath(path)
        raise
    _flush_folder(temporary.parent)


def write_atomically(
    path: str | os.PathLike[str], content: bytes, *, keep: str | os.PathLike[str] | None = None
) -> None:
    """Write a file under a temporary name beside it, flush it to disk, and rename it.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        content: all of it.
        keep: a name in the same folder that the file before gets; None drops it.

    Raises:
        OSError: the file cannot be written; what was there before is still there, and nothing else.
    """
    with whole_file(path, keep=keep) as file:
        file.write(content)


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):  # the file itself is whole either way
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
