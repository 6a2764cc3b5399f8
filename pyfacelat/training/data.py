"""Rendered faces on disk as memory-mapped arrays, and the batches and augmentation made from them.

A set is a folder of plain arrays: z.npy, images.npy (uint8), landmarks.npy (relative points) and
masks.npy (uint8 weight of the inner face). It is rendered once, chunk by chunk, continues after a
kill, and knows its hash. Chunk k of a set depends on (seed, k) only, so a longer set starts with a
shorter one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pyfacelat.faces.groups import NUM_LANDMARKS
from pyfacelat.procface.params import FLIP_LANDMARKS

__all__ = [
    "FaceSet",
    "FaceSource",
    "augment",
    "chunk_z",
    "face_mask",
    "face_set",
    "other_latents",
    "procedural_source",
]

CHUNK = 256
SEEDS = {"train": 11, "val": 12, "test": 13}
"""Seed of each split; they never share a face."""


@dataclasses.dataclass(frozen=True)
class FaceSource:
    """Where faces come from: the procedural renderer, or something cruder in a test.

    Attributes:
        z_dim: width of z.
        render: (z [N, z_dim] float32, size) -> images [N,S,S,3] uint8, landmarks [N,68,2] pixels.
        mirror: z -> the z of the mirrored face, or None where there is none.
    """

    z_dim: int
    render: Callable[[NDArray[Any], int], tuple[NDArray[Any], NDArray[Any]]]
    mirror: Callable[[NDArray[Any]], NDArray[Any]] | None = None


def procedural_source(threads: int = 1) -> FaceSource:
    """Use the faces of `pyfacelat.procface`, rendered on so many threads."""
    from pyfacelat.procface import Z_DIM, from_latent, mirror, render

    def draw(z: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        out = render(from_latent(z), size=size, threads=threads)
        return out["image"], out["landmarks"]

    return FaceSource(z_dim=Z_DIM, render=draw, mirror=mirror)


def face_mask(points: Tensor, size: int, sigma: float = 2.0 / 64) -> Tensor:
    """Weight of the inner face: the highest of Gaussians around its landmarks.

    Args:
        points: [N,68,2] relative.
        size: side of the mask in pixels.
        sigma: standard deviation, relative.

    Returns:
        [N,size,size] float32 in [0, 1]; 1 on brows, eyes, nose and mouth, without the jaw.
    """
    middles = [points[:, 36:42].mean(1), points[:, 42:48].mean(1), points[:, 60:68].mean(1)]
    centres = torch.cat([points[:, 17:], torch.stack(middles, 1)], 1)  # irises and mouth too
    cells = (torch.arange(size) + 0.5) / size
    along = torch.exp(-((cells - centres[..., None]) ** 2) / (2 * sigma**2))  # [N,P,2,size]
    mask = torch.zeros(len(points), size, size)
    for p in range(centres.shape[1]):
        torch.maximum(mask, along[:, p, 1, :, None] * along[:, p, 0, None, :], out=mask)
    return mask


@dataclasses.dataclass(frozen=True)
class FaceSet:
    """A rendered set in memory-mapped arrays.

    Attributes:
        z: [N, z_dim] float32, standard normal (not normalised).
        z_mirror: the z of the mirrored faces, or None.
        images: [N,S,S,3] uint8. landmarks: [N,68,2] float32, relative. masks: [N,S,S] uint8.
        sha256: hash of z, images and landmarks.
    """

    z: NDArray[np.float32]
    z_mirror: NDArray[np.float32] | None
    images: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    masks: NDArray[np.uint8]
    sha256: str

    def __len__(self) -> int:
        return len(self.z)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[1])

    def batch(
        self, index: NDArray[np.int64], mirrored: NDArray[np.bool_] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One batch.

        Args:
            index: [B] faces to take.
            mirrored: [B] which of them to mirror; ignored where the source knows no mirror.

        Returns:
            z [B,z_dim], images [B,3,S,S] in [-1,1], points [B,68,2] relative, masks [B,1,S,S] in
            [0,1].
        """
        order = np.argsort(index)  # read the file forwards, give back in the order asked for
        back = np.argsort(order)
        taken = index[order]
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[taken][back]))
        images = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        masks = torch.from_numpy(np.ascontiguousarray(self.masks[taken][back]))[:, None]
        masks = masks.float().div_(255)
        points = torch.from_numpy(np.array(self.landmarks[index]))
        z = torch.from_numpy(np.array(self.z[index]))
        if mirrored is not None and self.z_mirror is not None and mirrored.any():
            which = torch.from_numpy(mirrored)
            z[which] = torch.from_numpy(self.z_mirror[index[mirrored]])
            images[which] = images[which].flip(-1)
            masks[which] = masks[which].flip(-1)
            flipped = points[which][:, FLIP_LANDMARKS]
            flipped[..., 0] = 1 - flipped[..., 0]
            points[which] = flipped
        return z, images, points, masks


def face_set(
    directory: str | os.PathLike[str],
    split: str,
    count: int,
    size: int,
    *,
    source: FaceSource | None = None,
    progress: Callable[[str], None] | None = None,
) -> FaceSet:
    """Open a rendered set, rendering what is missing of it.

    Args:
        directory: parent folder of all sets.
        split: "train", "val" or "test"; chooses the seed.
        count: faces, rounded up to whole chunks of 256 on disk.
        size: side of the images in pixels.
        source: None = the procedural renderer.
        progress: called with a line now and then.

    Raises:
        ValueError: the set on disk is of another renderer or another shape.
    """
    source = source or procedural_source()
    say = progress or (lambda line: None)
    chunks = math.ceil(count / CHUNK)
    folder = Path(directory) / f"{split}_{size}px_{chunks * CHUNK}"
    folder.mkdir(parents=True, exist_ok=True)
    total = chunks * CHUNK
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "z": ((total, source.z_dim), np.float32),
        "images": ((total, size, size, 3), np.uint8),
        "landmarks": ((total, NUM_LANDMARKS, 2), np.float32),
        "masks": ((total, size, size), np.uint8),
    }
    index_file = folder / "index.json"
    index: dict[str, Any] = (
        json.loads(index_file.read_text()) if index_file.exists() else {"done": 0, "sha256": ""}
    )

    probe_z, probe = chunk_z(split, 0, source.z_dim)[:4], None
    if index["done"]:
        stored_z, stored = (
            np.load(folder / "z.npy", mmap_mode="r"),
            np.load(folder / "images.npy", mmap_mode="r"),
        )
        same = stored_z.shape == shapes["z"][0] and np.array_equal(stored_z[:4], probe_z)
        if same:
            probe = source.render(probe_z, size)[0]
            same = np.array_equal(stored[:4], probe)
        if not same:
            raise ValueError(
                f"{folder}: holds faces of another renderer; remove the folder, or use another one"
            )
    mode = "r+" if index["done"] else "w+"
    if index["done"] < chunks:
        arrays = {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy",
                mode=mode,
                dtype=None if mode == "r+" else kind,
                shape=None if mode == "r+" else shape,
            )
            for name, (shape, kind) in shapes.items()
        }
        for chunk in range(index["done"], chunks):
            rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            z = chunk_z(split, chunk, source.z_dim)
            images, landmarks = source.render(z, size)
            relative = np.asarray(landmarks, np.float32) / size
            arrays["z"][rows], arrays["images"][rows] = z, images
            arrays["landmarks"][rows] = relative
            mask = face_mask(torch.from_numpy(relative), size)
            arrays["masks"][rows] = mask.mul(255).round().byte().numpy()
            index["done"] = chunk + 1
            if chunk % 8 == 7 or chunk + 1 == chunks:
                for array in arrays.values():
                    array.flush()
                _write_json(index_file, index)
                say(f"{folder.name}: {(chunk + 1) * CHUNK} of {total} faces rendered")
        del arrays
    opened = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes}
    if not index["sha256"]:
        digest = hashlib.sha256()
        for name in ("z", "images", "landmarks"):
            for start in range(0, total, CHUNK):
                digest.update(np.ascontiguousarray(opened[name][start : start + CHUNK]).tobytes())
        index["sha256"] = digest.hexdigest()
        _write_json(index_file, index)
    z = np.array(opened["z"])
    mirrored = None
    if source.mirror is not None:
        mirrored = np.asarray(source.mirror(z), np.float32)
    return FaceSet(
        z,
        mirrored,
        opened["images"],
        np.array(opened["landmarks"]),
        opened["masks"],
        index["sha256"],
    )


def augment(images: Tensor, points: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Change what a landmark net must not care about: placement, tone, noise, blur, cover.

    Args:
        images: [B,3,S,S] in [0,1].
        points: [B,68,2] relative.
        rng: source of all randomness.

    Returns:
        Images in [0,1] and the points moved along; a rotation (sd 7 degrees), a scale (sd 7 %), a
        shift (sd 4 %), a gain and an offset per channel, noise, for some a blur or an erased
        rectangle.
    """
    count, size = len(images), images.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng)

    angle = normal(count) * math.radians(7)
    scale = torch.exp(normal(count) * 0.07)
    shift = normal(count, 2) * 0.04
    # Forward map of points about the centre: p' = scale * R (p - c) + c + shift; images need its
    # inverse.
    cos, sin = angle.cos(), angle.sin()
    forward = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    moved = (points - 0.5) @ (forward * scale[:, None, None]).transpose(1, 2) + 0.5 + shift[:, None]
    inverse = forward.transpose(1, 2) / scale[:, None, None]
    offset = -(inverse @ (shift * 2)[:, :, None])
    grid = F.affine_grid(torch.cat([inverse, offset], 2), list(images.shape), align_corners=False)
    x = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    blurred = uniform(count) < 0.3
    if blurred.any():
        soft = F.avg_pool2d(F.pad(x[blurred], (1, 1, 1, 1), mode="replicate"), 3, 1)
        part = uniform(int(blurred.sum()), 1, 1, 1)
        x[blurred] = x[blurred] * (1 - part) + soft * part
    x = x * (1 + 0.12 * normal(count, 3, 1, 1)) + 0.08 * normal(count, 3, 1, 1)
    x = x + normal(*x.shape) * (0.08 * uniform(count, 1, 1, 1) ** 2)
    for i in (uniform(count) < 0.25).nonzero()[:, 0].tolist():
        height, width = (int(v) for v in (uniform(2) * 0.2 * size + 3))
        top, left = (int(v) for v in (uniform(2) * (size - 8)))
        x[i, :, top : top + height, left : left + width] = uniform(3)[:, None, None]
    return x.clamp_(0, 1), moved


def chunk_z(split: str, chunk: int, z_dim: int) -> NDArray[np.float32]:
    """Draw the z [256, z_dim] of one chunk of a split, standard normal.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SEEDS:
        raise ValueError(f"split: expected one of {', '.join(SEEDS)}, got {split!r}")
    rng = np.random.default_rng((SEEDS[split], chunk))
    return rng.standard_normal((CHUNK, z_dim), dtype=np.float32)


def other_latents(z: NDArray[Any]) -> NDArray[np.float32]:
    """Draw another latent for each of z [N, z_dim], standard normal.

    Each is seeded by the bytes of its own z, so that it does not depend on its neighbours.
    """
    seeds = [np.frombuffer(np.float32(row).tobytes(), np.uint32) for row in z]
    rows = [np.random.default_rng(seed).standard_normal(z.shape[1]) for seed in seeds]
    return np.stack(rows).astype(np.float32)


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
