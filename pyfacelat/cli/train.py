"""`pyfacelat train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.options import DeviceOption, JsonOption, NetworkOption
from pyfacelat.errors import ConfigError


def encoder(
    data: Annotated[Path, typer.Argument(help="Folder that `pyfacelat generate` wrote.")],
    kind: Annotated[
        str, typer.Option(help="e4e, or image-to-latent (a ResNet-50 finder).")
    ] = "e4e",
    size: Annotated[str, typer.Option(help="published, or small.")] = "published",
    steps: Annotated[
        int | None, typer.Option(help="Default: 200,000 of e4e, 20 passes of image-to-latent.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Faces a step, of each process. Default: 8 and 32.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Default: 1e-4 and 1e-3.")] = None,
    held: Annotated[float, typer.Option(help="Share of the faces to check with.")] = 0.04,
    perceptual: Annotated[
        str, typer.Option(help="Of e4e: auto, sample, lpips-vgg16, none.")
    ] = "auto",
    identity: Annotated[
        str, typer.Option(help="Of e4e: auto, sample, none, or a recognition net's file.")
    ] = "auto",
    network: NetworkOption = "sample",
    outdir: Annotated[
        Path, typer.Option(help="Where the state and the encoder are written.")
    ] = Path("encoder-out"),
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    check_seconds: Annotated[
        float, typer.Option(help="Seconds between looks at held-out faces.")
    ] = 900.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train an encoder on faces of a generator; run again, it goes on where it stopped.

    Writes OUTDIR/encoder.safetensors, which `encode` and `project` take as --encoder, with sheets
    of held-out faces and log.jsonl beside it. `torchrun --nproc-per-node 8 -m pyfacelat train
    encoder ...` shares the work.
    """
    from pyfacelat.projection.runtime import resolve_device
    from pyfacelat.training.inversion import EncoderPlan, train_encoder

    plan = EncoderPlan(
        kind=kind,
        size=size,
        steps=steps,
        batch=batch,
        lr=lr,
        held=held,
        perceptual=perceptual,
        identity=identity,
        seed=seed,
    )
    where = resolve_device(device)
    try:
        path = train_encoder(
            data,
            outdir,
            plan,
            network=network,
            device=where,
            check_seconds=check_seconds,
            say=(lambda line: None) if as_json else typer.echo,
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"outdir: {error}") from None
    typer.echo(json.dumps({"encoder": str(path)}) if as_json else f"encoder  {path}")
