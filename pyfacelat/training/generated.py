"""Generated faces and their latents, as `edits.dataset.write_dataset` leaves them in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.images import load_image

__all__ = ["GeneratedFaces"]

Index = NDArray[np.int64]


class GeneratedFaces:
    """A stretch of such a folder; pictures are read when they are asked for.

    Args:
        folder: with NNNNNN.png and wp.npy.
        size: side that pictures are brought to.
        start, stop: which of them, a half-open range; None is to the end.

    Raises:
        CheckpointError: there is no wp.npy, it holds no latents, or pictures are missing.
        ConfigError: an empty stretch.
    """

    def __init__(
        self, folder: str | os.PathLike[str], size: int, start: int = 0, stop: int | None = None
    ) -> None:
        self.folder, self.size = Path(folder), size
        path = self.folder / "wp.npy"
        try:
            # Mapped: of a large set only the rows that are asked for are read.
            self._ws: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                path, f"no latents: {error}; `pyfacelat generate` makes them"
            ) from None
        if self._ws.ndim != 3 or self._ws.dtype != np.float32:
            raise CheckpointError(
                path,
                f"expected float32 [n, num_ws, w_dim], got {self._ws.dtype} {list(self._ws.shape)}",
            )
        count = len(self._ws)
        last = self.folder / f"{count - 1:06d}.png"
        if count and not last.exists():
            raise CheckpointError(last, f"is missing, and wp.npy has {count} rows")
        self._range = range(count)[start:stop]
        if not len(self._range):
            raise ConfigError(f"faces: expected some from {start} on, the folder has {count}")

    def __len__(self) -> int:
        return len(self._range)

    @property
    def shape(self) -> tuple[int, int]:
        """(num_ws, w_dim) of the latents."""
        return int(self._ws.shape[1]), int(self._ws.shape[2])

    def images(self, index: Index) -> Tensor:
        """Pictures [n,3,size,size] in [-1, 1]."""
        files = [self.folder / f"{self._range[int(i)]:06d}.png" for i in index]
        return torch.stack([load_image(file, size=self.size) for file in files])

    def ws(self, index: Index) -> Tensor:
        """Latents [n,num_ws,w_dim] of the same pictures."""
        rows = [self._range[int(i)] for i in index]
        return torch.from_numpy(np.stack([np.array(self._ws[row]) for row in rows]))

    @staticmethod
    def split(
        folder: str | os.PathLike[str], size: int, held: float = 0.04
    ) -> tuple[GeneratedFaces, GeneratedFaces]:
        """The first faces to train on, and the last ones, a share of them, to check with.

        Raises:
            ConfigError: fewer than two faces, or a share that leaves one side empty.
        """
        everything = GeneratedFaces(folder, size)
        count = len(everything)
        kept = count - max(round(count * held), 1)
        if not 0 < kept < count:
            raise ConfigError(f"held: {held} of {count} faces leaves none on one side")
        return GeneratedFaces(folder, size, 0, kept), GeneratedFaces(folder, size, kept)
