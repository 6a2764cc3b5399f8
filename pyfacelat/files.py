"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under a temporary name beside it, flush it to disk, and rename it.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        content: all of it.

    Raises:
        OSError: the file cannot be written; what was there before is still there, and nothing else.
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=target.resolve().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
