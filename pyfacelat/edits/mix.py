"""Mixing: some rows of one latent replaced by those of another, wholly or in part.

    out[i] = donor[i] + psi * (original[i] - donor[i])    for the chosen rows i
    out[i] = original[i]                                  for all others

so psi is the share of the original that stays: 1 changes nothing, 0 takes the donor's rows.
"""

from __future__ import annotations

import dataclasses
import difflib

import torch
from torch import Tensor

from pyfacelat.edits.rows import PUBLISHED_ROWS, Rows, row_indices
from pyfacelat.errors import ConfigError

__all__ = ["RECIPES", "Recipe", "expression_transfer", "find_recipe", "mix", "style_transfer"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named way to mix.

    Attributes:
        rows: half-open range, of the 18 rows of a 1024 px generator.
        psi: share of the original, in [0, 1].
        text: what it does.
    """

    rows: tuple[int, int]
    psi: float
    text: str

    def __call__(self, original: Tensor, donor: Tensor) -> Tensor:
        """Mix as this recipe says; see `mix`."""
        return mix(original, donor, slice(*self.rows), psi=self.psi, of=PUBLISHED_ROWS)


RECIPES: dict[str, Recipe] = {
    "style": Recipe((8, 18), 0.0, "colours, light and texture of the donor"),
    "expression": Recipe((3, 10), 0.5, "half of the donor's expression"),
}
"""Recipes published for FFHQ faces; on other generators they are where to begin, not a promise."""


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; ConfigError, with the closest one, if there is none."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}{hint}")
    return RECIPES[name]


def mix(
    original: Tensor, donor: Tensor, rows: Rows, *, psi: float = 0.0, of: int | None = None
) -> Tensor:
    """Blend the chosen rows of `original` towards `donor`.

    Args:
        original: [..., L, D], float.
        donor: [..., L, D]; leading dimensions broadcast, so that [N,1,L,D] and [1,M,L,D] give the
            table of every original with every donor.
        rows: see `row_indices`.
        psi: share of the original in the chosen rows. In [0, 1] it lies between the two; values
            outside go beyond them.
        of: number of rows that `rows` counts in; see `row_indices`.

    Returns:
        [..., L, D], a new tensor. Rows that are not chosen equal the original's bit for bit; at psi
        1 and 0 the chosen ones equal the original's and the donor's.

    Raises:
        ConfigError: rows that are not there, shapes that do not fit, or psi that is not finite.
    """
    if not -1e6 < psi < 1e6:  # also false for NaN
        raise ConfigError(f"psi: expected a finite number, got {psi}")
    if original.ndim < 2 or original.shape[-2:] != donor.shape[-2:]:
        raise ConfigError(
            f"donor: expected latents [..., L, D] with the L and D of the original's "
            f"{list(original.shape)}, got {list(donor.shape)}"
        )
    chosen = row_indices(rows, original.shape[-2], of=of)
    try:
        shape = torch.broadcast_shapes(original.shape, donor.shape)
    except RuntimeError:
        raise ConfigError(
            f"donor: {list(donor.shape)} does not broadcast with {list(original.shape)}"
        ) from None
    out = original.expand(shape).clone()
    donor = donor.expand(shape).to(out)
    # lerp is exact at both ends; donor + psi * (original - donor) is not at psi 1.
    out[..., chosen, :] = torch.lerp(donor[..., chosen, :], out[..., chosen, :], psi)
    return out


def style_transfer(original: Tensor, donor: Tensor) -> Tensor:
    """Colours, light and texture of the donor: rows 8-18 of 18, psi 0. Shapes as in `mix`."""
    return RECIPES["style"](original, donor)


def expression_transfer(original: Tensor, donor: Tensor) -> Tensor:
    """Half of the donor's expression: rows 3-10 of 18, psi 0.5. Shapes as in `mix`."""
    return RECIPES["expression"](original, donor)
