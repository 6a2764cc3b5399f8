"""A fitted face space: faces for vectors, blends, morphs, and its file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat.checkpoints import (
    Source,
    check_shapes,
    config_of,
    expected_tensors,
    read,
    write_safetensors,
)
from pyfacelat.edits.morph import morph
from pyfacelat.edits.sheets import render
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.nets.facespace import FaceSpaceConfig, FaceSpaceEncoder
from pyfacelat.nets.stylegan2 import Generator

__all__ = ["FaceSpace"]

_KIND = "face-space"
_NAMES = "names"


class FaceSpace:
    """An encoder and the generator behind it.

    Only the direction of a vector matters, unless `strength` is asked for; see the package.

    Attributes:
        encoder: z to ws.
        generator: what renders them.
        names: of the faces, N.
        history: of the fit; empty for a space from a file.
    """

    def __init__(
        self,
        encoder: FaceSpaceEncoder,
        generator: Generator,
        names: list[str],
        history: list[dict[str, Any]] | None = None,
    ) -> None:
        self.encoder, self.generator, self.names = encoder, generator, names
        self.history = history or []

    @property
    def z(self) -> Tensor:
        """The faces' vectors, [N,d]."""
        return self.encoder.z

    @property
    def targets(self) -> Tensor:
        """The latents that were propagated, [N,num_ws,w_dim]."""
        return self.encoder.targets

    def vector(self, weights: Mapping[str, float]) -> Tensor:
        """The vector [d] of a blend: the sum of the faces' vectors times their weights.

        Raises:
            ConfigError: an unknown name, or a space of landmarks, where faces have no axes.
        """
        if self.encoder.config.kind == "landmarks":
            raise ConfigError("weights: a space of landmarks takes points, not weights of faces")
        unknown = [name for name in weights if name not in self.names]
        if unknown:
            raise ConfigError(f"weights: no face {unknown[0]!r}; there are {', '.join(self.names)}")
        shares = torch.tensor([float(weights.get(name, 0.0)) for name in self.names])
        if not bool(torch.isfinite(shares).all()):
            raise ConfigError(f"weights: expected finite numbers, got {dict(weights)}")
        return shares.to(self.z) @ self.z

    def random(self, count: int, *, seed: int = 0) -> Tensor:
        """Random blends, [count,d]: magnitudes of normal numbers as weights of the faces."""
        source = torch.Generator().manual_seed(seed)
        weights = torch.randn(count, len(self.z), generator=source).abs()
        return weights.to(self.z) @ self.z

    @torch.no_grad()
    def ws(self, vectors: Tensor, *, strength: bool = False) -> Tensor:
        """Latents of vectors.

        Args:
            vectors: [M,d] or [d].
            strength: False: only a vector's direction counts. True: the distance from the average
                face is scaled by the sum of the vector's entries (1 for the faces themselves);
                for one-hot spaces only.

        Returns:
            [M,num_ws,w_dim].

        Raises:
            ConfigError: another width, a vector of zeros without strength, or strength in a space
                whose vectors are no weights.
        """
        z = (vectors if vectors.ndim == 2 else vectors[None]).to(self.z)
        if z.ndim != 2 or z.shape[1] != self.z.shape[1]:
            raise ConfigError(
                f"vectors: expected [M, {self.z.shape[1]}], got {list(vectors.shape)}"
            )
        if not strength:
            if bool((z == 0).all(1).any()):
                raise ConfigError("vectors: zeros have no direction, and only direction counts")
            ws: Tensor = self.encoder(z)
            return ws
        if not torch.equal(self.z, torch.eye(len(self.z)).to(self.z)):
            raise ConfigError("strength: only one-hot vectors are weights; this space has others")
        amount = z.sum(1)[:, None, None]
        inside = self.encoder.normalised(z)  # of zeros it is something, which the amount removes
        return self.encoder.to_ws(amount * inside)

    def render(self, vectors: Tensor, *, strength: bool = False) -> np.ndarray[Any, Any]:
        """Faces of vectors [M,d] or [d] as uint8 [M,R,R,3]; see `ws`."""
        return render(self.generator, self.ws(vectors, strength=strength))

    def morph(self, vectors: Tensor, *, steps: int = 20) -> Tensor:
        """Walk along straight lines of z: [K,d] to latents [(K - 1) * steps + 1, num_ws, w_dim].

        The ends equal `ws` of the vectors.
        """
        path = morph(vectors.to(self.z)[:, None], steps=steps)[:, 0]
        # One by one: rounding depends on the batch, and ends shall equal faces rendered alone.
        return torch.cat([self.ws(z) for z in path])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write encoder, vectors, targets and names as safetensors; the generator stays out."""
        write_safetensors(
            path,
            _KIND,
            dataclasses.asdict(self.encoder.config),
            self.encoder.state_dict(),
            metadata={_NAMES: json.dumps(self.names)},
        )

    @staticmethod
    def load(path: str | os.PathLike[str], generator: Generator) -> FaceSpace:
        """Read what `save` wrote.

        Raises:
            CheckpointError: it is not that, or was fitted to a generator of another shape.
        """
        checkpoint = read(path)
        config = config_of(checkpoint, _KIND, FaceSpaceConfig)
        if (config.num_ws, config.w_dim) != (generator.num_ws, generator.w_dim):
            raise CheckpointError(
                path,
                f"is for latents [{config.num_ws}, {config.w_dim}], the generator's are "
                f"[{generator.num_ws}, {generator.w_dim}]",
            )
        try:
            names = json.loads(checkpoint.metadata.get(_NAMES, ""))
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(path, "expected a list of texts", f"__metadata__.{_NAMES}")
        if len(names) != config.faces:
            raise CheckpointError(path, f"{len(names)} names for {config.faces} faces", _NAMES)
        expected = expected_tensors(_KIND, dataclasses.asdict(config))
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
        # Before anything is allocated: a few bytes of config can ask for terabytes.
        check_shapes(Source(checkpoint.file, b""), expected, found)
        with torch.random.fork_rng(devices=[]):
            encoder = FaceSpaceEncoder(config)
        encoder.load_state_dict(checkpoint.tensors)
        encoder.to(next(generator.parameters())).eval().requires_grad_(False)
        return FaceSpace(encoder, generator, names)
