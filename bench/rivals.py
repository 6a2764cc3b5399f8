"""The projection step of the published code, in plain torch: what a user has without this package.

Two rivals. `improved=False` is the published formulation: weights modulated for each image, so that
the gradient of a style is a weight gradient; plain chains for filters and activations; NCHW; a FAN
whose weights nobody froze. `improved=True` has every improvement a user can make in a line:
activations modulated instead of weights, frozen networks, loss networks in channels_last. (Its
malloc settings are the measuring loop's, see `bench_project`.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.bench_modulated_conv2d import FIR, fused, unfused
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.fan import FAN
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.ops.upfirdn2d import reference as plain_upfirdn2d

LANDMARK_WEIGHT, NOISE_WEIGHT, RATE = 0.1, 1e5, 0.1


class Synthesis:
    """W and noise to an image of batch 1, with the weights of `generator`."""

    def __init__(self, generator: Generator, *, improved: bool) -> None:
        self._generator = generator
        self._layer = unfused if improved else fused

    def __call__(self, ws: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Ws [1,num_ws,D] and maps [R,R] by name -> [1,3,R,R]."""
        network = self._generator.synthesis
        x = image = None
        row = 0
        for resolution in network.block_resolutions:
            block = network.get_submodule(f"b{resolution}")
            prefix = f"synthesis.b{resolution}"
            if x is None:
                x = block.const[None]
            else:
                x = self._styled(x, block.conv0, ws[:, row], noise[f"{prefix}.conv0.noise_const"])
                row += 1
            x = self._styled(x, block.conv1, ws[:, row], noise[f"{prefix}.conv1.noise_const"])
            row += 1
            rgb = _to_rgb(x, block.torgb, ws[:, row])
            if image is not None:
                rgb = rgb + plain_upfirdn2d(image, FIR.to(image), 2, 1, [2, 1, 2, 1], False, 4.0)
            image = rgb
        assert image is not None
        return image

    def _styled(self, x: Tensor, layer: nn.Module, w: Tensor, noise: Tensor) -> Tensor:
        style = _affine(layer.affine, w)
        noise = noise[None, None] * layer.noise_strength
        return self._layer(x, layer.weight, style, noise, layer.bias, layer.up)


def _affine(layer: nn.Module, w: Tensor) -> Tensor:
    return F.linear(w, layer.weight * layer.weight_gain, layer.bias)


def _to_rgb(x: Tensor, layer: nn.Module, w: Tensor) -> Tensor:
    style = _affine(layer.affine, w) * layer.weight_gain
    return F.conv2d(x, layer.weight * style[:, :, None, None]) + layer.bias[:, None, None]


def noise_regulariser(maps: list[Tensor]) -> Tensor:
    """The published pyramid of autocorrelations; maps [R,R]."""
    total = torch.zeros((), device=maps[0].device)
    for value in maps:
        level = value[None, None]
        while True:
            total = total + (level * torch.roll(level, shifts=1, dims=3)).mean() ** 2
            total = total + (level * torch.roll(level, shifts=1, dims=2)).mean() ** 2
            if level.shape[2] <= 8:
                break
            level = F.avg_pool2d(level, kernel_size=2)
    return total


def maps_distance(maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Distance of heat maps as published; all [1,68,H,W], weights [68,1,1]."""
    return torch.sqrt(torch.sum((weights * (maps - target)) ** 2))


class Step:
    """One step of the published projector on one image; call it to do the next.

    Args:
        generator: frozen.
        perceptual: LPIPS, not folded, not changed.
        fan: the same.
        look, pose: images [1,3,R,R] in [-1, 1].
        w: where to start, [1,1,D].
        noise: maps [R,R] by name to start from.
        weights: one a landmark, [68].
        draws: latent noise of each step, [steps,D], its deviation applied.
        improved: which of the two rivals.
        capturable: keep Adam's counts on the device, so that a CUDA graph can record a step.

    """

    def __init__(
        self,
        generator: Generator,
        perceptual: LPIPS,
        fan: FAN,
        look: Tensor,
        pose: Tensor,
        *,
        w: Tensor,
        noise: Mapping[str, Tensor],
        weights: Tensor,
        draws: Tensor,
        improved: bool,
        capturable: bool = False,
    ) -> None:
        layout = torch.channels_last if improved else torch.contiguous_format
        self._synthesis = Synthesis(generator, improved=improved)
        self._num_ws = generator.num_ws
        self._perceptual = copy.deepcopy(perceptual).to(memory_format=layout)
        self._fan = copy.deepcopy(fan).eval().to(memory_format=layout).requires_grad_(not improved)
        self._weights = weights[:, None, None]
        self._draws = draws
        with torch.no_grad():
            self._look = self._perceptual.embed(_shrink(look))
            self._maps = self._heat_maps(pose)
        self.w = w.clone().requires_grad_()
        self.noise = {name: value.clone().requires_grad_() for name, value in noise.items()}
        parameters = [self.w, *self.noise.values()]
        self._adam = torch.optim.Adam(parameters, lr=RATE, capturable=capturable)
        self._count, self._steps = 0, len(draws)

    def compile(self) -> None:
        """Put the three networks under torch.compile."""
        self._synthesis = torch.compile(self._synthesis.__call__)  # type: ignore[assignment]
        self._perceptual.trunk = torch.compile(self._perceptual.trunk)
        self._heat_maps = torch.compile(self._heat_maps)  # type: ignore[method-assign]

    def _heat_maps(self, image: Tensor) -> Tensor:
        if image.shape[-1] != self._fan.config.input_size:
            image = F.interpolate(image, size=(self._fan.config.input_size,) * 2, mode="nearest")
        return self._fan((image + 1) / 2)[-1]

    def __call__(self) -> Tensor:
        """Return the total before the step."""
        t = self._count / self._steps
        ramp = min(1.0, (1.0 - t) / 0.25)
        for group in self._adam.param_groups:
            group["lr"] = RATE * (0.5 - 0.5 * math.cos(ramp * math.pi)) * min(1.0, t / 0.05)
        ws = (self.w + self._draws[self._count]).repeat([1, self._num_ws, 1])
        image = self._synthesis(ws, self.noise)
        total = self._perceptual.distance(self._perceptual.embed(_shrink(image)), self._look).sum()
        total = total + LANDMARK_WEIGHT * maps_distance(
            self._heat_maps(image), self._maps, self._weights
        )
        total = total + NOISE_WEIGHT * noise_regulariser(list(self.noise.values()))
        self._adam.zero_grad(set_to_none=True)
        total.backward()
        self._adam.step()
        with torch.no_grad():
            for value in self.noise.values():
                value -= value.mean()
                value *= value.square().mean().rsqrt()
        self._count += 1
        return total.detach()


def _shrink(image: Tensor) -> Tensor:
    return F.interpolate(image, size=(256, 256), mode="area") if image.shape[-1] > 256 else image
