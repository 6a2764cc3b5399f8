"""Numbers of trained sample models on held-out faces, for the model card and its test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.faces.groups import GROUPS
from pyfacelat.faces.landmarks import normalised_error
from pyfacelat.nets.fan import FAN
from pyfacelat.nets.sample_encoder import SampleEncoder
from pyfacelat.nets.stylegan2 import Generator

from .data import FaceSet
from .encoder_task import latent_r2, latent_targets
from .fan_task import predict_points
from .fast_generator import FastGenerator
from .generator_task import psnr

__all__ = ["evaluate_encoder", "evaluate_fan", "evaluate_generator", "generate", "w_statistics"]


@torch.no_grad()
def generate(generator: Generator, z: Tensor, batch: int = 32) -> Tensor:
    """Images [N,3,R,R] in [-1,1] of z [N,z_dim], by the standard forward pass."""
    parts = []
    for part in z.split(batch):
        images = generator.synthesis(generator.mapping(part), noise_mode="const")
        parts.append(images.float().clamp(-1, 1))
    return torch.cat(parts)


def evaluate_generator(
    generator: Generator, held: FaceSet, count: int, judge: FAN | None = None
) -> dict[str, float]:
    """PSNR against the renders (whole and inner face), sharpness, and a judge's landmark error.

    Args:
        generator: trained net.
        held: unseen faces.
        count: how many of them.
        judge: a landmark net that no training saw, or None.

    Returns:
        psnr, psnr_p05, face_psnr [dB]; sharpness, the high-pass energy in the inner face over that
        of the renders; judge_nme_generated, judge_nme_renders as ratios of the outer eye distance.
    """
    z, images, points, masks = held.batch(np.arange(min(count, len(held))))
    made = generate(generator, z)
    whole = psnr(made, images)
    numbers = {
        "faces": float(len(z)),
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


def evaluate_fan(
    fan: FAN, held: FaceSet, count: int, generator: Generator | None = None
) -> dict[str, float]:
    """Landmark error by outer eye corners on renders, per group, and on generated faces."""
    z, images, points, _ = held.batch(np.arange(min(count, len(held))))
    found = predict_points(fan, images)
    error = normalised_error(found, points)
    numbers = {
        "faces": float(len(z)),
        "nme": float(error.mean()),
        "nme_p95": float(error.quantile(0.95)),
    }
    eyes = (points[:, 36] - points[:, 45]).norm(dim=-1)
    for group, members in GROUPS.items():
        index = list(members)
        off = (found[:, index] - points[:, index]).norm(dim=-1).mean(1) / eyes
        numbers[f"nme_{group}"] = float(off.mean())
    if generator is not None:
        seen = predict_points(fan, generate(generator, z))
        numbers["nme_generated"] = float(normalised_error(seen, points).mean())
    return numbers


@torch.no_grad()
def evaluate_encoder(
    encoder: SampleEncoder, held: FaceSet, count: int, names: Sequence[str]
) -> dict[str, Any]:
    """R2 of tanh(0.75 z) per parameter and the landmark head's error.

    Args:
        encoder: trained net.
        held: unseen faces.
        count: how many of them.
        names: of the entries of z.
    """
    z, images, points, _ = held.batch(np.arange(min(count, len(held))))
    parts = [encoder(part) for part in images.split(64)]
    r2 = latent_r2(torch.cat([p[0] for p in parts]), latent_targets(z)).tolist()
    found = torch.cat([p[1] for p in parts])
    return {
        "faces": float(len(z)),
        "r2_mean": float(np.mean(r2)),
        "nme": float(normalised_error(found, points).mean()),
        "r2": dict(zip(names, r2, strict=True)),
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
