"""Style codes: what the layers of a synthesis network make of w before they modulate with it."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from pyfacelat.errors import ConfigError

__all__ = ["style_codes"]

_ORDER = ("conv0", "conv1", "torgb")


@torch.no_grad()
def style_codes(synthesis: nn.Module, ws: Tensor) -> dict[str, Tensor]:
    """The style vector of every layer, in the order in which the layers run.

    Args:
        synthesis: a network with layers b4.conv1, b4.torgb, b8.conv0, ...
        ws: [N,L,D].

    Returns:
        layer name -> [N,C_i], C_i the layer's input channels. A block's toRGB reads the row that
        the next block's first convolution reads.

    Raises:
        ConfigError: no such layers, or latents of another number of rows.
    """
    layers = {
        (int(match[1]), _ORDER.index(match[2])): (name, module)
        for name, module in synthesis.named_modules()
        if (match := re.fullmatch(r"b(\d+)\.(conv0|conv1|torgb)", name))
    }
    convolutions = sum(kind < 2 for _, kind in layers)
    if not layers or ws.ndim != 3 or ws.shape[1] != convolutions + 1:
        raise ConfigError(
            f"ws: expected [N, {convolutions + 1}, D] for {convolutions} convolutions, "
            f"got {list(ws.shape)}"
        )
    codes, row = {}, 0
    for key in sorted(layers):
        name, module = layers[key]
        affine = module.get_submodule("affine")
        codes[name] = affine(ws[:, row].to(next(affine.parameters())))
        row += key[1] < 2
    return codes
