"""`pyfacelat convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.errors import CheckpointError


def convert(
    source: Annotated[Path, typer.Argument(help="A weight file in any known format.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16.")] = False,
) -> None:
    """Convert a weight file to safetensors, without executing anything in it."""
    from pyfacelat.checkpoints.convert import convert as convert_file

    if not source.exists():
        raise CheckpointError(source, "no such file")
    typer.echo(str(convert_file(source, target, half=half)))
