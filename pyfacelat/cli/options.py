"""Options that several commands have, and what is checked of the paths among them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.errors import CheckpointError, ConfigError

NetworkOption = Annotated[
    str, typer.Option(help='StyleGAN2 file (.pkl, .safetensors), or "sample".')
]
LandmarkerOption = Annotated[str, typer.Option(help="auto, sample, 2dfan4, or a file.")]
OutdirOption = Annotated[Path, typer.Option(help="Where results are written.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def safe_outdir(outdir: Path) -> Path:
    """Create a folder for results; ConfigError if that is not possible."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"outdir: {outdir}: cannot be made: {error.strerror}") from None
    return outdir


def existing(path: Path) -> Path:
    """The path of a file to read; CheckpointError if there is none."""
    if not path.exists():
        raise CheckpointError(path, "no such file")
    return path


def face_of(text: str) -> str | int:
    """Which face of several: a number where the text is one, else the word."""
    return int(text) if text.isdigit() else text
