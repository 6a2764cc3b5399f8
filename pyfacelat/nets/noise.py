"""Where the noise of a synthesis network comes from: stored, given or random maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["NOISE_MODES", "NoiseSource", "RandomState"]

NOISE_MODES = ("const", "random", "none")

RandomState = torch.Generator | Sequence[torch.Generator] | None


class NoisyLayer(Protocol):
    """What a layer with noise has: a stored map [H, W], and whether it is used."""

    use_noise: bool
    noise_const: Tensor


class NoiseSource:
    """Hands every synthesis layer its noise map, by the rules of `SynthesisNetwork.forward`."""

    def __init__(
        self,
        mode: str,
        given: Mapping[str, Tensor] | None,
        generator: RandomState,
        sizes: Mapping[str, tuple[int, int]],
        batch: int,
    ) -> None:
        if mode not in NOISE_MODES:
            raise ValueError(f"noise_mode: expected one of {', '.join(NOISE_MODES)}, got {mode!r}")
        if given and mode == "none":
            raise ValueError("noise: maps are given, but noise_mode is 'none'")
        self.mode = mode
        self.batch = batch
        self.generator = generator
        self.given: dict[str, Tensor] = {}
        for key, value in (given or {}).items():
            name = key.removeprefix("synthesis.")
            if name not in sizes or name == key:
                raise ValueError(f"noise: no map named {key!r}; see Generator.noise_names()")
            self.given[name] = _as_noise(key, value, sizes[name], batch)
        if isinstance(generator, Sequence) and len(generator) != batch:
            raise ValueError(f"generator: expected 1 or {batch} (one each), got {len(generator)}")

    def __call__(self, name: str, layer: NoisyLayer) -> Tensor | None:
        """The map of a layer, [N or 1, 1, H, W]; None where nothing is to be added."""
        if not layer.use_noise:
            return None
        like = layer.noise_const
        if name in self.given:
            return self.given[name].to(like)
        if self.mode == "const":
            return like[None, None]
        if self.mode == "random":
            size = (1, *like.shape)
            if isinstance(self.generator, Sequence):
                return torch.stack([_normal(size, like, each) for each in self.generator])
            return _normal((self.batch, *size), like, self.generator)
        return None


def _normal(size: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(size, generator=generator, device=like.device, dtype=like.dtype)


def _as_noise(name: str, value: Tensor, size: tuple[int, int], batch: int) -> Tensor:
    """[H, W], [N or 1, H, W] or [N or 1, 1, H, W] -> [N or 1, 1, H, W]."""
    noise = value
    if noise.ndim == 2:
        noise = noise[None, None]
    elif noise.ndim == 3:
        noise = noise[:, None]
    if noise.ndim != 4 or noise.shape[0] not in (1, batch) or tuple(noise.shape[1:]) != (1, *size):
        height, width = size
        raise ValueError(
            f"noise: {name}: expected shape [{height}, {width}], [{batch} or 1, {height}, {width}]"
            f" or [{batch} or 1, 1, {height}, {width}], got {list(value.shape)}"
        )
    return noise
