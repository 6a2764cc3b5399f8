"""Encoders trained on a generator's own faces: what to build, how long to train, what to write."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyfacelat import zoo
from pyfacelat.checkpoints import write_safetensors
from pyfacelat.errors import ConfigError
from pyfacelat.losses.identity import IdentityDistance
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.e4e import E4E, E4EConfig
from pyfacelat.nets.image_to_latent import ImageToLatent, ImageToLatentConfig
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.space import measure

from . import loop
from .distributed import joined
from .e4e_task import E4ETask, Stages, scale_heads
from .finder_task import FinderTask, centre_last_layer
from .generated import GeneratedFaces
from .loop import Phase

__all__ = ["KINDS", "SIZES", "EncoderPlan", "train_encoder"]

KINDS = ("e4e", "image-to-latent")
SIZES = ("published", "small")

_E4E_STEPS, _FINDER_PASSES = 200_000, 20
_BATCH = {"e4e": 8, "image-to-latent": 32}
_SMALL_SIDE = 128


@dataclasses.dataclass(frozen=True)
class EncoderPlan:
    """What to train.

    Attributes:
        kind: "e4e", or "image-to-latent" (a ResNet-50 with three dense layers).
        size: "published" (267 and 31 million parameters at 1024 px) or "small", for trying out and
            for small generators.
        steps: None: 200,000 of e4e, 20 passes of image-to-latent.
        batch: of each process; None: the published 8 and 32.
        lr: None: 1e-4 and 1e-3.
        held: share of the faces that is kept to check with.
        perceptual: of e4e: "auto", a name or a file, or "none". The published one is LPIPS on
            AlexNet; here it is VGG-16's, or the sample networks'.
        identity: of e4e: "auto" (the sample networks' own for the sample network, else none),
            "none", or the file of IR-SE50 or another such network.
        seed: of weights and batches.
    """

    kind: str = "e4e"
    size: str = "published"
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None
    held: float = 0.04
    perceptual: str = "auto"
    identity: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("size", SIZES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")


def train_encoder(
    data: str | os.PathLike[str],
    outdir: str | os.PathLike[str],
    plan: EncoderPlan | None = None,
    *,
    network: str | os.PathLike[str] | Generator = "sample",
    device: str | torch.device = "cpu",
    checkpoint_seconds: float = 300.0,
    check_seconds: float = 900.0,
    say: Callable[[str], None] = print,
) -> Path:
    """Train an encoder on a folder of generated faces, or go on with what was interrupted.

    Started by torchrun, processes share the work; see `distributed`.

    Args:
        data: a folder that `edits.dataset.write_dataset` wrote.
        outdir: holds state.pt, log.jsonl, sheets of held-out faces and, in the end,
            encoder.safetensors with the averaged weights.
        plan: what to train.
        network: the generator that made the faces.
        device: where to train.
        checkpoint_seconds: between saved states.
        check_seconds: between looks at held-out faces.
        say: receives a line now and then.

    Returns:
        the path of encoder.safetensors, for `zoo.load_any_encoder`.

    Raises:
        ConfigError: the faces are too few, or not of this generator's latents.
        CheckpointError, MissingWeightsError: files that are malformed or missing.
        ValueError: outdir holds another run.
    """
    plan = plan or EncoderPlan()
    folder = Path(outdir)
    with joined(zoo.check_device(device)) as (world, where):
        if isinstance(network, Generator):
            generator = network.to(where).freeze()
        else:
            generator = zoo.load_generator(network, device=where)
        sample = isinstance(network, str) and network == "sample"
        task: Any
        if plan.kind == "e4e":
            task = _e4e(plan, data, generator, sample, where)
        else:
            task = _finder(plan, data, generator, where)
        loop.run(
            task,
            folder,
            seed=plan.seed,
            checkpoint_seconds=checkpoint_seconds,
            check_seconds=check_seconds,
            say=say,
            world=world,
        )
        path = folder / "encoder.safetensors"
        if world.first:
            net = task.encoder if plan.kind == "e4e" else task.net
            weights, _ = loop.load_ema(folder)
            prefix = "encoder." if plan.kind == "e4e" else ""
            tensors = {
                k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)
            }
            write_safetensors(path, plan.kind, dataclasses.asdict(net.config), tensors)
        return path


def _e4e(
    plan: EncoderPlan,
    data: str | os.PathLike[str],
    generator: Generator,
    sample: bool,
    device: torch.device,
) -> E4ETask:
    shape: dict[str, Any] = {"num_ws": generator.num_ws, "w_dim": generator.w_dim}
    if plan.size == "published":
        config = E4EConfig(**shape)
    else:
        side = min(_SMALL_SIDE, max(generator.img_resolution, 32))
        config = E4EConfig(
            **shape, blocks=(1, 2, 2, 1), widths=(32, 48, 64, 64), reduction=4, input_size=side
        )
    steps = _E4E_STEPS if plan.steps is None else plan.steps
    train, held = _faces(data, config.input_size, plan, generator)
    encoder = _seeded(lambda: E4E(config), plan.seed).to(device)
    statistics = measure(generator)
    scale = statistics.std / math.sqrt(generator.w_dim)
    scale_heads(encoder, scale)
    encoder.latent_avg.copy_(statistics.mean.expand(generator.num_ws, -1))
    perceptual = identity = None
    if plan.perceptual != "none":
        auto = "sample" if sample else "lpips-vgg16"
        name = auto if plan.perceptual == "auto" else plan.perceptual
        metric: LPIPS = zoo.load_perceptual(name, device=device)
        perceptual = metric
    if plan.identity not in ("none", "auto") or (sample and plan.identity == "auto"):
        own = plan.identity in ("auto", "sample")
        net = zoo.load_identity("sample" if own else plan.identity, device=device)
        # The sample one looks at the whole crop.
        identity = IdentityDistance(net, crop=None) if own else IdentityDistance(net)
    return E4ETask(
        encoder,
        generator,
        train,
        held,
        [_phase(plan, steps)],
        # The published shares: a tenth of the steps for row 0, a hundredth for each other.
        stages=Stages(max(round(steps * 0.1), 1), max(round(steps * 0.01), 1)),
        perceptual=perceptual,
        identity=identity,
        scale=scale,
        lr=plan.lr or 1e-4,
        seed=plan.seed,
    )


def _finder(
    plan: EncoderPlan, data: str | os.PathLike[str], generator: Generator, device: torch.device
) -> FinderTask:
    shape: dict[str, Any] = {"num_ws": generator.num_ws, "w_dim": generator.w_dim}
    if plan.size == "published":
        config = ImageToLatentConfig(**shape)
    else:
        config = ImageToLatentConfig(
            **shape,
            blocks=(1, 1, 1, 1),
            width=16,
            input_size=_SMALL_SIDE,
            reduced=32,
        )
    train, held = _faces(data, config.input_size, plan, generator)
    batch = plan.batch or _BATCH[plan.kind]
    steps = plan.steps or _FINDER_PASSES * math.ceil(len(train) / batch)
    net = _seeded(lambda: ImageToLatent(config), plan.seed).to(device)
    statistics = measure(generator)
    scale = statistics.std / math.sqrt(generator.w_dim)
    centre_last_layer(net, statistics.mean, scale)
    return FinderTask(
        net, generator, train, held, [_phase(plan, steps)], scale=scale, lr=plan.lr or 1e-3
    )


def _phase(plan: EncoderPlan, steps: int) -> Phase:
    batch = plan.batch or _BATCH[plan.kind]
    return Phase("train", batch=batch, steps=steps, flat=1.0, warmup=1, ema=0.999)


def _faces(
    data: str | os.PathLike[str], size: int, plan: EncoderPlan, generator: Generator
) -> tuple[GeneratedFaces, GeneratedFaces]:
    train, held = GeneratedFaces.split(data, size, plan.held)
    if train.shape != (generator.num_ws, generator.w_dim):
        raise ConfigError(
            f"data: its latents are {list(train.shape)}, the network's "
            f"{[generator.num_ws, generator.w_dim]}"
        )
    return train, held


def _seeded(make: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module = make()
    return net
