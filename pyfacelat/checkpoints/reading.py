"""Tells the format of a file from its first bytes and hands it to the right reader."""

from __future__ import annotations

import os

from pyfacelat.errors import CheckpointError

from .checkpoint import Checkpoint
from .nvidia import read_nvidia
from .safe import read_safetensors
from .source import MAX_FILE_BYTES, Source
from .torchfile import read_torch

__all__ = ["LEGACY_MAGIC_BYTES", "PARTS", "read", "read_source"]

PARTS = ("generator", "discriminator", "encoder")

# Torch's magic number as pickle writes it (LONG1); a legacy stream has it right at its beginning.
LEGACY_MAGIC_BYTES = bytes.fromhex("8a0a6cfc9c46f9206aa85019")

# What people take for a weight file, by its first bytes.
_OTHERS = {
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"\x89HDF": "an HDF5 file (Keras?)",
    b"\x93NUMPY": "an array of numpy, such as latents or a direction",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"GGUF": "a GGUF file",
}


def read(
    path: str | os.PathLike[str], *, part: str = "generator", max_bytes: int = MAX_FILE_BYTES
) -> Checkpoint:
    """Read a weight file without running anything in it.

    Supported: safetensors written by this package; network pickles of NVIDIA's
    stylegan2-ada-pytorch, of the StyleGAN2 in stylegan3 and of StyleGAN and StyleGAN2 for
    TensorFlow, and such networks in files of torch.save, as PTI writes; ports of StyleGAN (2019) to
    torch; rosinality's StyleGAN2 checkpoints; those of e4e and pSp; state dicts (torch zip, torch
    legacy, safetensors) of the networks in `statedicts`.
    Time and memory are proportional to the size of the file.

    Args:
        path: the file.
        part: "generator", "discriminator" or "encoder": which network of a file that holds several.
        max_bytes: refuse larger files.

    Raises:
        CheckpointError: the file is malformed, hostile, or of an unsupported kind; it names the
            file, the place and the reason.
        FileNotFoundError: there is no such file.
        ValueError: `part` is unknown.
    """
    return read_source(Source.open(path, max_bytes=max_bytes), part=part)


def read_source(source: Source, *, part: str = "generator") -> Checkpoint:
    """Like `read`, for bytes that are already in memory."""
    if part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    start = bytes(source.data[:512])
    try:
        if start.startswith(b"PK"):
            return read_torch(source, part)
        if start[:1] == b"\x80" and LEGACY_MAGIC_BYTES in start[:24]:
            return read_torch(source, part)
        if start[:1] == b"\x80" and len(start) > 1 and start[1] <= 5:
            return read_nvidia(source, part)
        for magic, what in _OTHERS.items():
            if start.startswith(magic):
                source.fail(f"is {what}, not a weight file that is read here")
        if start[257:262] == b"ustar":
            source.fail("is a tar archive, not a weight file that is read here; unpack it first")
        if start[:2] == b"\x1f\x8b":
            source.fail("is compressed with gzip; decompress it first")
        if start.lstrip()[:1] == b"<":
            source.fail("is a web page or XML, not a weight file: the download went wrong")
        if start.startswith(b"version https://git-lfs"):
            source.fail("is a Git LFS pointer, not the file itself")
        if start[8:9] == b"{":
            return read_safetensors(source)
    except MemoryError:
        raise CheckpointError(source.name, "needs more memory than there is") from None
    source.fail(
        "is of no known format: no safetensors, no pickle of protocol 2 to 5, no torch archive"
    )
