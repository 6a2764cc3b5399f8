"""noise_reg and noise_update on all noise maps of StyleGAN2 at 256, 512 and 1024.

Rivals: the published loop over maps and levels, with Adam and the renormalisation map by map; and
the best short improvements: dot products instead of products and means, and in-place updates with
torch's norm for the RMS.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import noise_reg_with_gradient, noise_update_, pack_maps

RESOLUTIONS = [256, 512, 1024]
RATES = (0.1, 0.3, 0.4, 1e5)  # learning rate, Adam's corrections, weight of the regulariser


def maps_of(resolution: int, device: str = "cpu") -> list[Tensor]:
    sides = [4]
    while sides[-1] < resolution:
        sides += [2 * sides[-1]] * 2
    return [torch.randn(1, s, s, device=device) for s in sides]


def plain(maps: list[Tensor]) -> tuple[Tensor, ...]:
    """Value and gradients as published."""
    leaves = [m.detach().requires_grad_() for m in maps]
    total = torch.zeros((), device=maps[0].device)
    for leaf in leaves:
        level = leaf[None]
        while True:
            total = total + (level * torch.roll(level, shifts=1, dims=3)).mean() ** 2
            total = total + (level * torch.roll(level, shifts=1, dims=2)).mean() ** 2
            if level.shape[2] <= 8:
                break
            level = F.avg_pool2d(level, kernel_size=2)
    return total.detach(), *torch.autograd.grad(total, leaves)


def dots(maps: list[Tensor]) -> tuple[Tensor, ...]:
    """The same with dot products instead of products and means."""
    leaves = [m.detach().requires_grad_() for m in maps]
    total = torch.zeros((), device=maps[0].device)
    for leaf in leaves:
        level = leaf
        while True:
            flat = level.flatten()
            for axis in (1, 2):
                mean = torch.dot(flat, level.roll(1, dims=axis).flatten()) / len(flat)
                total = total + mean**2
            if level.shape[2] <= 8:
                break
            level = F.avg_pool2d(level, kernel_size=2)
    return total.detach(), *torch.autograd.grad(total, leaves)


def ours(maps: list[Tensor]) -> tuple[Tensor, ...]:
    value, gradient = noise_reg_with_gradient(maps)
    pieces = gradient.split([m[0].numel() for m in maps], 1)
    return value[0], *(g.view(m.shape) for g, m in zip(pieces, maps, strict=True))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_regulariser(compare: Callable, resolution: int) -> None:
    _, _, maps = pack_maps(maps_of(resolution))
    compare(
        lambda: ours(maps),
        {"plain": lambda: plain(maps), "dots": lambda: dots(maps)},
        check=assert_same,
        gigabytes=4e-9 * sum(m.numel() for m in maps) * 3,
    )


class Update:
    """One step of Adam and renormalisation, by three formulations from the same start."""

    def __init__(self, resolution: int, device: str = "cpu") -> None:
        self.gradients = maps_of(resolution, device)
        self.regular = pack_maps(self.gradients)[0] * 1e-6
        self.start, self.sizes, _ = pack_maps(maps_of(resolution, device))
        self.rates = torch.tensor(RATES, device=device)
        self.state = [self.start.clone(), *(torch.zeros_like(self.start) for _ in range(2))]
        views = [m.view(-1) for m in pack_maps(maps_of(resolution, device))[2]]
        self.maps = [torch.zeros_like(v) for v in views]
        self.moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in views]
        self.pieces = self.start[0].split([v.numel() for v in views])
        self.regular_pieces = self.regular[0].split([v.numel() for v in views])

    def ours(self) -> tuple[Tensor, ...]:
        self.state[0].copy_(self.start), self.state[1].zero_(), self.state[2].zero_()
        noise_update_(*self.state, self.gradients, self.rates, self.sizes, regular=self.regular)
        return (self.state[0],)

    def plain(self) -> tuple[Tensor, ...]:
        rate, first, second, factor = self.rates
        for m, piece, (a, b), g, r in zip(
            self.maps, self.pieces, self.moments, self.gradients, self.regular_pieces, strict=True
        ):
            m.copy_(piece), a.zero_(), b.zero_()
            g = g.view(-1) + factor * r
            a.lerp_(g, 0.1)
            b.mul_(0.999).addcmul_(g, g, value=0.001)
            m.sub_(rate / first * (a / (b.sqrt() / second + 1e-8)))
            m.sub_(m.mean())
            m.mul_(m.square().mean().rsqrt())
        return (torch.cat(self.maps)[None],)

    def in_place(self) -> tuple[Tensor, ...]:
        """The bias corrections folded into one addcdiv, the RMS by torch's norm."""
        rate, first, second, factor = RATES
        for m, piece, (a, b), g, r in zip(
            self.maps, self.pieces, self.moments, self.gradients, self.regular_pieces, strict=True
        ):
            m.copy_(piece), a.zero_(), b.zero_()
            g = torch.add(g.view(-1), r, alpha=factor)
            a.lerp_(g, 0.1)
            b.mul_(0.999).addcmul_(g, g, value=0.001)
            m.addcdiv_(a, b.sqrt().div_(second).add_(1e-8), value=-rate / first)
            m.sub_(m.mean())
            m.mul_(len(m) ** 0.5 / torch.linalg.vector_norm(m))
        return (torch.cat(self.maps)[None],)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_update(compare: Callable, resolution: int) -> None:
    update = Update(resolution)
    compare(
        update.ours,
        {"plain": update.plain, "in place": update.in_place},
        check=assert_same,
        gigabytes=4e-9 * update.start.numel() * 10,
    )
