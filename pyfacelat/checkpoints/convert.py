"""`pyfacelat convert`: any readable weight file into the native format, or into rosinality's."""

from __future__ import annotations

import dataclasses
import hashlib
import os

import torch

from pyfacelat.errors import ConfigError

from .checkpoint import Checkpoint
from .reading import read
from .rosinality import write_rosinality
from .safe import write_safetensors

__all__ = ["Report", "convert"]

# Metadata in which readers say what they had to assume.
_ASSUMED = ("noise", "filters")


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
        notes: what the new format cannot say, or had to be assumed about the old one.
    """

    kind: str
    src: str
    dst: str
    tensors: int
    values: int
    nbytes: int
    sha256: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for people, and one for each note."""
        line = (
            f"{self.dst}: {self.kind}, {self.tensors} tensors, {self.values:,} numbers, "
            f"{self.nbytes:,} bytes, sha256 {self.sha256[:16]}"
        )
        return "\n".join([line, *(f"note: {note}" for note in self.notes)])


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    half: bool = False,
    part: str = "generator",
) -> Report:
    """Read `src` and write it to `dst` in the format that its name ends with, values unchanged.

    Args:
        src: a weight file of any supported format.
        dst: the new file; replaced if it exists. Names that end with .pt or .pth get rosinality's
            layout (StyleGAN2 generators only), all others safetensors.
        half: store floating-point tensors as float16 (relative error up to 4.9e-4); safetensors
            only.
        part: "generator", "discriminator" or "encoder", where a file holds several.

    Raises:
        CheckpointError: `src` cannot be read, or with `half`, a value is too large for float16, or
            rosinality's layout has no names for the network.
        ConfigError: `half` with rosinality's layout.
        FileNotFoundError: there is no `src`.
    """
    foreign = os.fspath(dst).lower().endswith((".pt", ".pth"))
    if foreign and half:
        raise ConfigError("half: rosinality's layout is stored in float32")
    checkpoint: Checkpoint = read(src, part=part)
    notes = [f"{k}: {checkpoint.metadata[k]}" for k in _ASSUMED if k in checkpoint.metadata]
    if foreign:
        notes += write_rosinality(dst, checkpoint)
    else:
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
        tuple(notes),
    )
