"""The weighted sum of terms, per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """What a step proposes, as the terms see it.

    Attributes:
        images: [N,3,R,R] in about [-1, 1].
        whitened: latents in whitened coordinates, [N,L,D].
        noise: noise maps by name, each [N,H,W]; empty when they are not optimised.
    """

    images: Tensor
    whitened: Tensor
    noise: Mapping[str, Tensor]


TermFunction = Callable[[Candidate], Tensor]


class Objective:
    """total = sum over terms of weight * term, one value per image.

    Args:
        terms: function of each term by name; each returns [N].
        weights: by name; terms of weight 0 are not evaluated.
    """

    def __init__(self, terms: Mapping[str, TermFunction], weights: Mapping[str, float]) -> None:
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._terms = {name: terms[name] for name in self.weights}

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that are on, in order."""
        return tuple(self._terms)

    def __call__(self, candidate: Candidate) -> tuple[Tensor, Tensor]:
        """Returns total [N] and the unweighted terms [len(names),N], detached."""
        values = {name: term(candidate) for name, term in self._terms.items()}
        weighted = [self.weights[name] * value for name, value in values.items()]
        total = torch.stack(weighted).sum(0)
        return total, torch.stack([value.detach() for value in values.values()])
