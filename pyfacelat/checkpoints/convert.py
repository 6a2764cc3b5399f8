"""`pyfacelat convert`: any readable weight file into the native format."""

from __future__ import annotations

import dataclasses
import hashlib
import os

import torch

from .checkpoint import Checkpoint
from .reading import read
from .safe import write_safetensors

__all__ = ["Report", "convert"]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        kind: the kind of network.
        src, dst: the files.
        tensors: how many tensors were written.
        values: how many numbers they hold.
        nbytes: size of the new file.
        sha256: its digest, hexadecimal.
    """

    kind: str
    src: str
    dst: str
    tensors: int
    values: int
    nbytes: int
    sha256: str

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.dst}: {self.kind}, {self.tensors} tensors, {self.values:,} numbers, "
            f"{self.nbytes:,} bytes, sha256 {self.sha256[:16]}"
        )


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    half: bool = False,
    part: str = "generator",
) -> Report:
    """Read `src` and write it to `dst` as safetensors, values unchanged.

    Args:
        src: a weight file of any supported format.
        dst: the new file; replaced if it exists.
        half: store floating-point tensors as float16 (relative error up to 4.9e-4).
        part: "generator", "discriminator" or "encoder", where a file holds several.

    Raises:
        CheckpointError: `src` cannot be read, or with `half`, a value is too large for float16.
        FileNotFoundError: there is no `src`.
    """
    checkpoint: Checkpoint = read(src, part=part)
    write_safetensors(
        dst,
        checkpoint.kind,
        checkpoint.config,
        checkpoint.tensors,
        dtype=torch.float16 if half else None,
        metadata=checkpoint.metadata,
    )
    with open(dst, "rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else None
        if digest is None:  # Python 3.10
            digest = hashlib.sha256(file.read())
    return Report(
        checkpoint.kind,
        os.fspath(src),
        os.fspath(dst),
        len(checkpoint.tensors),
        sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        os.stat(dst).st_size,
        digest.hexdigest(),
    )
