"""Numbers of trained sample models on held-out faces, for the model card and its test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat import procface
from pyfacelat.faces.groups import GROUPS
from pyfacelat.faces.landmarks import normalised_error
from pyfacelat.nets.discriminator import Discriminator
from pyfacelat.nets.fan import FAN
from pyfacelat.nets.identity import IdentityNet
from pyfacelat.nets.sample_encoder import SampleEncoder
from pyfacelat.nets.stylegan2 import Generator

from .data import FaceSet
from .discriminator_task import judge_reality
from .encoder_task import latent_r2, latent_targets, squash
from .fan_task import predict_points
from .fast_generator import FastGenerator
from .generator_task import psnr
from .identity_task import embed, identity_columns, verification

__all__ = [
    "evaluate_discriminator",
    "evaluate_encoder",
    "evaluate_fan",
    "evaluate_generator",
    "evaluate_identity",
    "generate",
    "w_statistics",
]


@torch.no_grad()
def generate(generator: Generator, z: Tensor, batch: int = 32) -> Tensor:
    """Images [N,3,R,R] in [-1,1] of z [N,z_dim], by the standard forward pass."""
    parts = []
    for part in z.split(batch):
        images = generator.synthesis(generator.mapping(part), noise_mode="const")
        parts.append(images.float().clamp(-1, 1))
    return torch.cat(parts)


def evaluate_generator(made: Tensor, held: FaceSet, judge: FAN | None = None) -> dict[str, float]:
    """PSNR against the renders (whole and inner face), sharpness, and a judge's landmark error.

    Args:
        made: what a trained net makes of the first faces of `held`, [N,3,S,S] in [-1,1].
        held: unseen faces.
        judge: a landmark net that no training saw, or None.

    Returns:
        psnr, psnr_p05, face_psnr [dB]; sharpness, the high-pass energy in the inner face over that
        of the renders; judge_nme_generated, judge_nme_renders as ratios of the outer eye distance.
    """
    _, images, points, masks = held.batch(np.arange(len(made)))
    whole = psnr(made, images)
    numbers = {
        "faces": float(len(made)),
        "psnr": float(whole.mean()),
        "psnr_p05": float(whole.quantile(0.05)),
        "face_psnr": float(psnr(made, images, masks).mean()),
        "sharpness": float((_detail(made, masks) / _detail(images, masks)).mean()),
    }
    if judge is not None:
        for name, pictures in (("generated", made), ("renders", images)):
            error = normalised_error(predict_points(judge, pictures), points)
            numbers[f"judge_nme_{name}"] = float(error.mean())
    return numbers


def evaluate_fan(fan: FAN, held: FaceSet, made: Tensor) -> dict[str, float]:
    """Landmark error by outer eye corners on renders, per group, and on generated faces.

    Args:
        fan: trained net.
        held: unseen faces.
        made: what a generator makes of the first of them, [N,3,S,S] in [-1,1].
    """
    _, images, points, _ = held.batch(np.arange(len(made)))
    found = predict_points(fan, images)
    error = normalised_error(found, points)
    numbers = {
        "faces": float(len(made)),
        "nme": float(error.mean()),
        "nme_p95": float(error.quantile(0.95)),
    }
    eyes = (points[:, 36] - points[:, 45]).norm(dim=-1)
    for group, members in GROUPS.items():
        index = list(members)
        off = (found[:, index] - points[:, index]).norm(dim=-1).mean(1) / eyes
        numbers[f"nme_{group}"] = float(off.mean())
    seen = predict_points(fan, made)
    numbers["nme_generated"] = float(normalised_error(seen, points).mean())
    return numbers


@torch.no_grad()
def evaluate_encoder(encoder: SampleEncoder, held: FaceSet, count: int) -> dict[str, Any]:
    """How well latents and landmarks of procedural faces are estimated.

    Args:
        encoder: trained net.
        held: unseen faces.
        count: how many of them.

    Returns:
        nme of the landmark head; by parameter, r2_value: the explained share of the variance of
        the parameter's value, which is what an image shows, and r2: that of tanh(0.75 z), which
        an image hides where the value hardly depends on z; the means of both.
    """
    z, images, points, _ = held.batch(np.arange(min(count, len(held))))
    parts = [encoder.estimate(part) for part in images.split(64)]
    latent = torch.cat([p[0] for p in parts])
    found = torch.cat([p[1] for p in parts])
    values = [
        torch.from_numpy(procface.from_latent(part.numpy(), normalize=normalize))
        for part, normalize in ((latent, False), (z, True))
    ]
    r2 = {"r2": latent_r2(squash(latent), latent_targets(z)), "r2_value": latent_r2(*values)}
    names = procface.names()
    return {
        "faces": float(len(z)),
        "nme": float(normalised_error(found, points).mean()),
        **{f"{name}_mean": float(value.mean()) for name, value in r2.items()},
        **{name: dict(zip(names, value.tolist(), strict=True)) for name, value in r2.items()},
    }


@torch.no_grad()
def evaluate_identity(
    net: IdentityNet, held: FaceSet, again: FaceSet, count: int
) -> dict[str, Any]:
    """Verification on held-out people; see `identity_task.verification`.

    Args:
        net: trained net.
        held: unseen faces.
        again: other pictures of the same people.
        count: how many of them.

    Returns:
        Its numbers, and r2, by parameter: how well the embedding's direction gives that of the
        person's own entries of z.
    """
    index = np.arange(min(count, len(held), len(again)))
    z, images, _, _ = held.batch(index)
    first, second = embed(net, images), embed(net, again.batch(index)[1])
    own = identity_columns()
    r2 = latent_r2(first, F.normalize(z[:, own], dim=1)).tolist()
    names = [procface.names()[i] for i in own]
    return {
        "people": float(len(z)),
        **verification(first, second),
        "r2": dict(zip(names, r2, strict=True)),
    }


@torch.no_grad()
def evaluate_discriminator(net: Discriminator, held: FaceSet, made: Tensor) -> dict[str, float]:
    """Accuracy on held-out renders and on what the generator makes of the same latents.

    Args:
        net: trained net.
        held: unseen faces.
        made: the generator's images of the first of them, [N,3,S,S] in [-1,1].

    Returns:
        accuracy, with 0 as the threshold of the logit; renders and generated, mean logits; pairs,
        the share of faces whose render has the higher logit.
    """
    images = held.batch(np.arange(len(made)))[1]
    real, fake = judge_reality(net, images), judge_reality(net, made)
    return {
        "faces": float(len(made)),
        "accuracy": float(torch.cat([real > 0, fake <= 0]).double().mean()),
        "renders": float(real.mean()),
        "generated": float(fake.mean()),
        "pairs": float((real > fake).double().mean()),
    }


@torch.no_grad()
def w_statistics(generator: Generator, count: int = 10_000, seed: int = 21) -> dict[str, Tensor]:
    """Mean and principal axes of w over random z.

    Returns:
        mean [w_dim]; cov_basis [w_dim, w_dim], columns are unit axes, strongest first; cov_scale
        [w_dim], standard deviations along them, so w = mean + cov_basis @ (cov_scale * v) with v ~
        N(0, 1).
    """
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.z_dim, generator=rng)
    w = FastGenerator(generator).mapping(z).double()
    mean = w.mean(0)
    values, basis = torch.linalg.eigh((w - mean).t() @ (w - mean) / (count - 1))
    scale = values.clamp_min(0).sqrt().flip(0)
    return {
        "mean": mean.float(),
        "cov_basis": basis.flip(1).float().contiguous(),
        "cov_scale": scale.float(),
    }


def _detail(images: Tensor, masks: Tensor) -> Tensor:
    """Weighted energy of what a 3x3 mean takes away, [N]."""
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    energy = (images - soft).square().mean(1, keepdim=True)
    return ((energy * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3))).sqrt().clamp_min(1e-9)
