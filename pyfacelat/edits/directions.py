"""Directions in W: shared ones, and those found without labels by GANSpace and SeFa.

A direction d is [D] or [1,D] (the same for all rows) or [L,D]. An edit adds it: w' = w + a d.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pyfacelat.edits.rows import Rows, row_indices
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.files import write_atomically
from pyfacelat.latents import load_components

__all__ = [
    "GANSpace",
    "ganspace",
    "modulations",
    "move",
    "save_direction",
    "sefa",
]


def move(
    ws: Tensor,
    direction: Tensor,
    strength: float | Tensor,
    rows: Rows = None,
    *,
    of: int | None = None,
) -> Tensor:
    """Add a direction: w + strength * d in the chosen rows.

    Args:
        ws: [...,L,D], float.
        direction: [D], [1,D] or [L,D]; its length counts (InterFaceGAN's have length 1, those for
            all 18 rows sqrt(18)).
        strength: a number, or a tensor that broadcasts with [...,L,D].
        rows: which rows move; see `row_indices`. None: all.
        of: number of rows that `rows` counts in.

    Returns:
        [...,L,D], a new tensor; strength 0 and rows that are not chosen leave w as it is.

    Raises:
        ConfigError: shapes that do not fit, or rows that are not there.
    """
    count = ws.shape[-2] if ws.ndim > 1 else 0
    if direction.ndim not in (1, 2) or direction.shape[-1] != ws.shape[-1]:
        fits = False
    else:
        fits = direction.ndim == 1 or direction.shape[0] in (1, count)
    if not fits or count == 0:
        raise ConfigError(
            f"direction: expected [D], [1, D] or [L, D] for latents [..., L, D] of shape "
            f"{list(ws.shape)}, got {list(direction.shape)}"
        )
    chosen = row_indices(rows, count, of=of)
    moved = ws + strength * direction.to(ws)
    out = ws.expand(moved.shape).clone()
    out[..., chosen, :] = moved[..., chosen, :]
    return out


@dataclasses.dataclass(frozen=True)
class GANSpace:
    """Principal components of a generator's w (Haerkoenen et al. 2020, arXiv:2004.02546).

    Attributes:
        components: [K,D] float32, orthonormal rows, the largest variance first.
        mean: [D] float32.
        std: [K] float32 > 0, standard deviation along each.
    """

    components: Tensor
    mean: Tensor
    std: Tensor

    def coordinate(self, ws: Tensor, index: int) -> Tensor:
        """Coordinate of row 0 of ws [...,L,D] along a component, in standard deviations; [...]."""
        self._check(index)
        centred = ws[..., 0, :] - self.mean.to(ws)
        along: Tensor = centred @ self.components[index].to(ws) / float(self.std[index])
        return along

    def edit(
        self, ws: Tensor, index: int, strength: float, rows: Rows = None, *, of: int | None = None
    ) -> Tensor:
        """Bring the coordinate of row 0 to `strength`, moving the chosen rows alike.

            delta = (strength - coordinate of row 0) * std * component,   w_i' = w_i + delta

        as encoder4editing does it: every item gets its own delta, and when row 0 is not among the
        chosen ones, delta still is measured there.

        Args:
            ws: [...,L,D].
            index: number of the component.
            strength: in standard deviations from the mean.
            rows: see `row_indices`; the published edits take a range.
            of: number of rows that `rows` counts in.

        Returns:
            [...,L,D].
        """
        gap = (strength - self.coordinate(ws, index)) * float(self.std[index])
        return move(ws, self.components[index], gap[..., None, None], rows, of=of)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as npz with the published keys comp [K,1,D], mean [1,D], std [K], atomically."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            comp=self.components[:, None].cpu().numpy(),
            mean=self.mean[None].cpu().numpy(),
            std=self.std.cpu().numpy(),
        )
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> GANSpace:
        """Read components in any layout that `latents.load_components` reads.

        Raises:
            CheckpointError: it is something else.
            FileNotFoundError: there is no such file.
        """
        found = load_components(path)
        if not bool((found.scales > 0).all()):
            raise CheckpointError(path, "has components without deviation", "std")
        return GANSpace(found.directions, found.mean, found.scales)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.components):
            raise ConfigError(f"index: expected 0 to {len(self.components) - 1}, got {index}")


def ganspace(w: Tensor, count: int = 80) -> GANSpace:
    """Principal components of samples w [n,D] of a generator's mapping.

    Args:
        w: n >= 2 samples, float; 10,000 are plenty.
        count: components wanted; at most D, and those without variance are left out.

    Raises:
        ConfigError: another shape, or samples that are all equal.
    """
    if w.ndim != 2 or len(w) < 2:
        raise ConfigError(f"w: expected samples [n, D] with n >= 2, got {list(w.shape)}")
    if count < 1:
        raise ConfigError(f"count: expected at least 1, got {count}")
    x = w.double()
    mean = x.mean(0)
    variance, basis = torch.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    order = variance.argsort(descending=True)[:count]
    order = order[variance[order] > 1e-12 * variance.max()]
    if len(order) == 0 or float(variance.max()) <= 0:
        raise ConfigError("w: expected samples that differ, got all equal ones")
    return GANSpace(
        _signed(basis[:, order].T).float(), mean.float(), variance[order].sqrt().float()
    )


def sefa(weights: Sequence[Tensor], count: int = 5) -> tuple[Tensor, Tensor]:
    """Directions that the first step of each layer amplifies most (Shen and Zhou 2021, 2007.06600).

    The top eigenvectors of A^T A, where A stacks the layers' modulation weights with every style's
    weight vector scaled to length 1.

    Args:
        weights: modulation weights [C_i,D] of the chosen layers: `affine.weight` of synthesis
            layers, one row per style.
        count: directions wanted, at most D.

    Returns:
        directions [count,D] float32, unit length, the strongest first; eigenvalues [count].

    Raises:
        ConfigError: no weights, or weights of different widths.
    """
    if not weights or any(a.ndim != 2 or a.shape[1] != weights[0].shape[1] for a in weights):
        raise ConfigError(
            f"weights: expected matrices [C, D] of one D, got {[list(a.shape) for a in weights]}"
        )
    if not 1 <= count <= weights[0].shape[1]:
        raise ConfigError(f"count: expected 1 to {weights[0].shape[1]}, got {count}")
    stacked = torch.cat([a.detach().double().cpu() for a in weights])
    unit = torch.nn.functional.normalize(stacked, dim=1)
    values, vectors = torch.linalg.eigh(unit.T @ unit)
    order = values.argsort(descending=True)[:count]
    return _signed(vectors[:, order].T).float(), values[order].float()


def modulations(synthesis: nn.Module) -> list[Tensor]:
    """Modulation weights [C_i,D] of a synthesis network's convolutions; entry i reads row i of w.

    Raises:
        ConfigError: a network without layers named b4.conv1, b8.conv0, b8.conv1, ...
    """
    layers = {
        (int(match[1]), int(match[2])): module
        for name, module in synthesis.named_modules()
        if (match := re.fullmatch(r"b(\d+)\.conv([01])", name))
    }
    if not layers:
        raise ConfigError("synthesis: expected layers b4.conv1, b8.conv0, ..., found none")
    return [layers[key].get_submodule("affine").get_parameter("weight") for key in sorted(layers)]


def save_direction(path: str | os.PathLike[str], direction: Tensor) -> None:
    """Write a direction [D] or [L,D] as .npy [1,D] or [L,D] float32, as others share them."""
    rows = direction if direction.ndim == 2 else direction[None]
    if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
        raise ConfigError(f"direction: expected finite [D] or [L, D], got {list(direction.shape)}")
    buffer = io.BytesIO()
    np.save(buffer, rows.detach().cpu().float().numpy(), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _signed(rows: Tensor) -> Tensor:
    """Eigenvectors with their largest entry positive: the sign does not depend on the machine."""
    index = rows.abs().argmax(1, keepdim=True)
    return rows * rows.gather(1, index).sign()
