"""`pyfacelat inspect`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyfacelat.cli.options import existing

if TYPE_CHECKING:
    from pyfacelat.checkpoints.inspecting import Summary


def inspect(
    file: Annotated[Path, typer.Argument(help="A weight file, or a file of latents.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a file is and what would be refused, without loading or running anything of it."""
    from pyfacelat.checkpoints.inspecting import inspect as inspect_file

    summary = inspect_file(existing(file))
    if as_json:
        content = {**dataclasses.asdict(summary), "readable": summary.readable}
        typer.echo(json.dumps(content, indent=1))
    else:
        for line in describe(summary):
            typer.echo(line)
    if not summary.readable:
        raise typer.Exit(5)


def describe(summary: Summary) -> list[str]:
    """The summary as lines for people."""
    lines = [f"{summary.file}: {summary.container}, {summary.nbytes:,} bytes"]
    for part in summary.parts:
        producer = part.metadata.get("producer")
        lines.append(f"{part.kind}" + (f", by {producer}" if producer else ""))
        rows = dict(part.facts)
        rows |= {k: v for k, v in part.metadata.items() if k not in ("producer", "format")}
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in part.dtypes.items())
        rows["tensors"] = f"{part.tensors} ({dtypes}), {part.values:,} numbers, {part.nbytes:,} B"
        lines += [f"  {name:18} {_plain(value)}" for name, value in rows.items()]
    for part_name, reason in summary.refused.items():
        verb = "not readable as" if not summary.parts else "no"
        lines.append(f"{verb} {part_name}: {reason}")
    return lines


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return ascii(value)[1:-1] if isinstance(value, str) else str(value)
