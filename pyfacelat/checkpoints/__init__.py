"""Reading weight files without executing anything in them, and writing the native format.

A file becomes a `Checkpoint` (kind, config, tensors). Nothing in a file is imported, compiled or
called; a file that is malformed, hostile or not supported raises `CheckpointError` with the file,
the place and the reason, in time and memory proportional to its size.
"""

from __future__ import annotations

from .checkpoint import KINDS, Checkpoint, check_shapes
from .configs import config_of, expect_kind
from .convert import Report, convert
from .names import expected_tensors
from .reading import read, read_source
from .safe import write_safetensors
from .source import Source

__all__ = [
    "KINDS",
    "Checkpoint",
    "Report",
    "Source",
    "check_shapes",
    "config_of",
    "convert",
    "expect_kind",
    "expected_tensors",
    "read",
    "read_source",
    "write_safetensors",
]
