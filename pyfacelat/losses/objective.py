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
        whitened: latents in whitened coordinates, [N,rows,D].
        ws: latents as the generator takes them, [N,num_ws,D].
        noise: noise maps by name, each [N,H,W]; empty when they are not optimised.
    """

    images: Tensor
    whitened: Tensor
    ws: Tensor
    noise: Mapping[str, Tensor]


TermFunction = Callable[[Candidate], Tensor]


class Objective:
    """total = sum over terms of weight * term, one value per image.

    Args:
        terms: function of each term by name; each returns [N].
        weights: by name; terms of weight 0 throughout are not evaluated.
        ends: terms whose weight moves linearly, with the progress, from `weights` to this one.
    """

    def __init__(
        self,
        terms: Mapping[str, TermFunction],
        weights: Mapping[str, float],
        ends: Mapping[str, float] | None = None,
    ) -> None:
        ends = {k: v for k, v in (ends or {}).items() if k in weights and v != weights[k]}
        self.weights = {k: w for k, w in weights.items() if w > 0 or ends.get(k, 0.0) > 0}
        self._ends = ends
        self._final: Tensor | None = None
        self._terms = {name: terms[name] for name in self.weights}

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that are on, in order."""
        return tuple(self._terms)

    def recorded_parts(self) -> list[object]:
        """All that decides the result, for `projection.graphs`."""
        return [self.weights, self._ends, self._terms]

    @property
    def terms(self) -> Mapping[str, TermFunction]:
        """Their functions, by name."""
        return self._terms

    def __call__(
        self, candidate: Candidate, progress: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the terms.

        Args:
            candidate: what to judge.
            progress: [1] in [0, 1], for weights that move; None is 0.

        Returns:
            total [N]; the unweighted terms [len(names),N], detached; and the total under the
            weights that the run ends with, detached: what steps are compared by.
        """
        values = {name: term(candidate) for name, term in self._terms.items()}
        weighted = []
        for name, value in values.items():
            weight: Tensor | float = self.weights[name]
            if name in self._ends and progress is not None:
                weight = weight + (self._ends[name] - weight) * progress
            weighted.append(weight * value)
        total = torch.stack(weighted).sum(0)
        plain = torch.stack([value.detach() for value in values.values()])
        if not self._ends:
            return total, plain, total.detach()
        if self._final is None or self._final.dtype != plain.dtype:
            # Once: a copy from the host would make every step wait, and forbid recording it.
            ends = [self._ends.get(n, w) for n, w in self.weights.items()]
            self._final = plain.new_tensor(ends)
        return total, plain, self._final @ plain
