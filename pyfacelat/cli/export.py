"""`pyfacelat export`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pyfacelat.cli.options import JsonOption
from pyfacelat.errors import ConfigError


def fan(
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    what: Annotated[str, typer.Option(help="heatmaps, landmarks or loss-and-gradient.")] = (
        "heatmaps"
    ),
    landmarker: Annotated[str, typer.Option(help="sample, 2dfan4, or a file.")] = "sample",
    batch: Annotated[str, typer.Option(help="Number of images, or dynamic.")] = "dynamic",
    dtype: Annotated[str, typer.Option(help="fp32 or fp16.")] = "fp32",
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 23.")] = 20,
    reduction: Annotated[
        str, typer.Option(help="Of the loss: per_landmark, l2, l1 or mse.")
    ] = "per_landmark",
    as_json: JsonOption = False,
) -> None:
    """Write the landmark network as an ONNX file, checked and compared with torch.

    Files are kept in the folder `export` beside that of the weights, and copied from there.
    """
    from pyfacelat import zoo
    from pyfacelat.export.fan import ExportOptions, export_fan

    # The options say themselves what they take.
    options = ExportOptions(**cast(Any, _options(what, batch, dtype, opset, reduction)))
    net = zoo.load_landmarker(landmarker)
    report = export_fan(net, out, options, progress=lambda line: typer.echo(line, err=True))
    if as_json:
        fields = dataclasses.asdict(report) | {"path": str(report.path)}
        typer.echo(json.dumps(fields))
        return
    source = "from the cache" if report.cached else f"in {report.seconds:.1f} s"
    typer.echo(f"{report.path}  {report.nodes} nodes, {report.size / 1e6:.1f} MB, {source}")
    for name, difference in report.differences.items():
        typer.echo(f"{name:10} differs from torch by {difference:.1e} (relative L2)")


def _options(what: str, batch: str, dtype: str, opset: int, reduction: str) -> dict[str, Any]:
    if batch != "dynamic" and not batch.isdecimal():
        raise ConfigError(f'batch: expected an integer >= 1 or "dynamic", got {batch!r}')
    return {
        "what": what,
        "batch": batch if batch == "dynamic" else int(batch),
        "dtype": dtype,
        "opset": opset,
        "reduction": reduction,
    }
