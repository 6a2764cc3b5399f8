"""The mapping network of StyleGAN2: latent and class label to w, with truncation.

Used by the generator, and without z and average by a conditional discriminator.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import FullyConnected, normalize_second_moment

__all__ = ["MappingNetwork"]


class MappingNetwork(nn.Module):
    """z (and the label c) to w: normalisation, concatenation, then dense layers.

    With `num_ws` None the result is one row per item, [N, w_dim] (used by the discriminator);
    with `w_avg_beta` None there is no `w_avg` buffer.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta

        embedded = (w_dim if embed_features is None else embed_features) if c_dim > 0 else 0
        hidden = w_dim if layer_features is None else layer_features
        widths = [z_dim + embedded] + [hidden] * (num_layers - 1) + [w_dim] * (num_layers > 0)
        if widths[-1] != w_dim:
            raise ValueError(
                f"num_mapping_layers: 0 layers need z_dim plus the embedded label ({widths[-1]}) "
                f"to equal w_dim ({w_dim})"
            )
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, embedded)
        for i in range(num_layers):
            layer = FullyConnected(
                widths[i], widths[i + 1], activation=activation, lr_multiplier=lr_multiplier
            )
            self.add_module(f"fc{i}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
    ) -> Tensor:
        """Map latents to w.

        Args:
            z: [N, z_dim], any scale (it is normalised to unit second moment); ignored, and None
                allowed, when z_dim is 0.
            c: class labels [N, c_dim], usually one-hot; ignored when c_dim is 0.
            truncation_psi: w_avg + psi * (w - w_avg); 1 leaves w alone.
            truncation_cutoff: number of leading rows that are truncated; None: all of them.
            skip_w_avg_update: leave `w_avg` alone in training mode.

        Returns:
            ws [N, num_ws, w_dim] ([N, w_dim] when num_ws is None), dtype of the weights.

        Raises:
            ValueError: z or c is missing or of the wrong shape, or truncation is asked of a
                network that holds no average.
        """
        x = self._input(z, c)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)

        beta = self.w_avg_beta if self.num_ws is not None else None
        if self.training and beta is not None and not skip_w_avg_update:
            with torch.no_grad():
                mean = x.detach().mean(dim=0).to(self.w_avg.dtype)
                self.w_avg.copy_(mean.lerp(self.w_avg, beta))
        if self.num_ws is not None:
            x = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return x
        if beta is None:
            raise ValueError(
                f"truncation_psi: must be 1 for a network without w_avg, got {truncation_psi}"
            )
        if truncation_cutoff is None:
            return self.w_avg.lerp(x, truncation_psi)
        head, tail = x[:, :truncation_cutoff], x[:, truncation_cutoff:]
        return torch.cat([self.w_avg.lerp(head, truncation_psi), tail], dim=1)

    def _input(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        parts = []
        reference = next(self.parameters(), None)
        dtype = torch.float32 if reference is None else reference.dtype
        if self.z_dim > 0:
            parts.append(normalize_second_moment(_rows("z", z, self.z_dim).to(dtype)))
        if self.c_dim > 0:
            label = self.embed(_rows("c", c, self.c_dim).to(dtype))
            parts.append(normalize_second_moment(label))
        if len(parts) == 2 and len(parts[0]) != len(parts[1]):
            raise ValueError(f"c: expected {len(parts[0])} labels, as z has, got {len(parts[1])}")
        return torch.cat(parts, dim=1) if len(parts) == 2 else parts[0]


def _rows(name: str, value: Tensor | None, width: int) -> Tensor:
    if value is None:
        raise ValueError(f"{name}: this network needs it, [N, {name}_dim = {width}]")
    if value.ndim != 2 or value.shape[1] != width:
        raise ValueError(
            f"{name}: expected shape [N, {name}_dim = {width}], got {list(value.shape)}"
        )
    return value
