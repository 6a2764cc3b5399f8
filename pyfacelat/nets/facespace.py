"""The encoders of a face space: a vector over faces, or 68 landmarks, to latents of a generator.

    x = z / sqrt(mean(z^2) + 1e-8)                  (pixel norm: only the direction of z counts)
    x = sqrt(2 / in) W_k x + b_k,  k = 1 .. K       (equalised learning rate)
        with x = leaky_relu(x, 0.2) between layers
    ws = mean + spread * x

as published in StyleGAN-FaceSpace, whose generator's w lie about 0 at a distance of about 1; mean
and spread make other generators look like it.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import normalize_second_moment

__all__ = ["FaceSpaceConfig", "FaceSpaceEncoder"]

_HIDDEN = {
    "one-hot": (64, 128, 256, 512, 512),
    "landmarks": (256, 256, 256, 512, 512, 1024),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceSpaceConfig:
    """Shape of an encoder.

    Attributes:
        faces: how many it was fitted to.
        inputs: d, width of z: the number of faces for one-hot vectors, 136 for landmarks.
        num_ws, w_dim: of the generator.
        kind: what z is, "one-hot" (any weights of faces) or "landmarks".
        hidden: widths of the hidden layers; see `published`.

    Raises:
        ValueError: a field is out of its range.
    """

    faces: int
    inputs: int
    num_ws: int
    w_dim: int
    kind: str
    hidden: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in _HIDDEN:
            raise ValueError(f"kind: expected one of {', '.join(_HIDDEN)}, got {self.kind!r}")
        for name in ("faces", "inputs", "num_ws", "w_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        # JSON has lists only.
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden: expected widths of at least 1, got {list(self.hidden)}")

    @staticmethod
    def published(
        *, faces: int, inputs: int, num_ws: int, w_dim: int, kind: str = "one-hot"
    ) -> FaceSpaceConfig:
        """The published widths: for one-hot vectors the first is that of z, at most 64."""
        narrow = (min(inputs, 64),) if kind == "one-hot" else ()
        hidden = (*narrow, *_HIDDEN.get(kind, ()))
        return FaceSpaceConfig(
            faces=faces, inputs=inputs, num_ws=num_ws, w_dim=w_dim, kind=kind, hidden=hidden
        )


class FaceSpaceEncoder(nn.Module):
    """z [N,d] to ws [N,num_ws,w_dim].

    Attributes:
        mean: [w_dim], where the generator's w lie.
        spread: [1], root of their mean squared distance from it.
        z: the faces' vectors, [faces,d].
        targets: the latents that the faces were fitted by, [faces,num_ws,w_dim].
    """

    mean: Tensor
    spread: Tensor
    z: Tensor
    targets: Tensor

    def __init__(self, config: FaceSpaceConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.inputs, *config.hidden, config.num_ws * config.w_dim)
        self.layers = nn.ModuleList(
            _Equalised(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.register_buffer("mean", torch.zeros(config.w_dim))
        self.register_buffer("spread", torch.ones(1))
        self.register_buffer("z", torch.zeros(config.faces, config.inputs))
        self.register_buffer("targets", torch.zeros(config.faces, config.num_ws, config.w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Map z [N,d] to ws [N,num_ws,w_dim]; ValueError if z has another shape."""
        return self.to_ws(self.normalised(z))

    def normalised(self, z: Tensor) -> Tensor:
        """The network's output before mean and spread, [N,num_ws,w_dim]."""
        if z.ndim != 2 or z.shape[1] != self.config.inputs:
            raise ValueError(f"z: expected [N, {self.config.inputs}], got {list(z.shape)}")
        x = normalize_second_moment(z)
        for number, layer in enumerate(self.layers):
            x = layer(x if number == 0 else F.leaky_relu(x, 0.2))
        rows: Tensor = x.unflatten(1, (self.config.num_ws, self.config.w_dim))
        return rows

    def to_ws(self, normalised: Tensor) -> Tensor:
        """Latents in the generator's own scale."""
        return self.mean + self.spread * normalised


class _Equalised(nn.Module):
    """Dense layer whose unit-variance weights are scaled when used, by sqrt(2 / in)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.gain = math.sqrt(2 / in_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias)
