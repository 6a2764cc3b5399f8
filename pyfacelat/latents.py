"""Latents, directions and noise maps on disk, in the layouts in which people share them.

`projected_w.npz` holds `w` [1|N, num_ws, w_dim] float32, as StyleGAN2-ADA's projector writes it;
`noise.npz` one array per noise map. Latents and directions are also read from .npy, from a dict
that np.save pickled, and from files of torch.save. Nothing is unpickled freely, and nothing becomes
larger in memory than a fixed limit.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyfacelat.checkpoints.arrays import MAX_ARRAY_FILE_BYTES, read_arrays
from pyfacelat.checkpoints.source import Source
from pyfacelat.errors import CheckpointError
from pyfacelat.files import write_atomically

__all__ = [
    "Boundary",
    "Components",
    "load_arrays",
    "load_boundary",
    "load_components",
    "load_latents",
    "load_named_latents",
    "load_noise",
    "normalise_latents",
    "save_latents",
    "save_noise",
]

PathLike = str | os.PathLike[str]

# What latents are called in files that hold more than one array, the last part of nested names.
_LATENT_NAMES = ("w", "ws", "latent", "latents", "dlatent", "dlatents", "w_plus", "wp", "w_pivot")
_BOUNDARY_NAMES = ("boundary", "direction", "normal", "w")
_INTERCEPT_NAMES = ("intercept", "bias")
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A direction in W or W+, the normal of a plane that separates two classes.

    Attributes:
        normal: [1, w_dim] (the same for every row) or [num_ws, w_dim], float32, as in the file:
            of length 1 in W for most, not always.
        intercept: of the plane, 0 where the file has none.
    """

    normal: Tensor
    intercept: float = 0.0


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of W, as GANSpace's files hold them.

    Attributes:
        directions: [K, w_dim] float32.
        mean: [w_dim] float32.
        scales: standard deviation along each direction, [K] float32, >= 0.
    """

    directions: Tensor
    mean: Tensor
    scales: Tensor


def normalise_latents(ws: Tensor, *, num_ws: int, w_dim: int) -> Tensor:
    """Bring latents of any of the usual layouts to [N, num_ws, w_dim].

    Args:
        ws: [w_dim] or [1, w_dim] (one W for all layers), [num_ws, w_dim] (one W+), [N, num_ws,
            w_dim] or [N, 1, w_dim]; any float dtype, finite.
        num_ws: rows that the generator reads.
        w_dim: width of a row.

    Returns:
        [N, num_ws, w_dim], float32; a view where rows are repeated.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    shape = list(ws.shape)
    if ws.ndim == 1:
        ws = ws[None]
    if ws.ndim == 2:
        ws = ws[None]
    if ws.ndim != 3 or ws.shape[2] != w_dim or ws.shape[1] not in (1, num_ws):
        raise ValueError(
            f"latents: expected [{w_dim}], [1, {w_dim}], [{num_ws}, {w_dim}] or "
            f"[N, {num_ws}, {w_dim}], got {shape}"
        )
    if not bool(torch.isfinite(ws).all()):
        raise ValueError("latents: expected finite values, got NaN or infinity")
    return ws.float().expand(-1, num_ws, -1)


def save_latents(path: PathLike, ws: Tensor) -> None:
    """Write latents, atomically; .npy holds the bare array, everything else an npz with key `w`.

    Args:
        path: the file; its folder must exist.
        ws: [N, num_ws, w_dim], float; stored as float32.

    Raises:
        ValueError: another number of dimensions, or a value that is not finite.
    """
    if ws.ndim != 3:
        raise ValueError(f"ws: expected shape [N, num_ws, w_dim], got {list(ws.shape)}")
    array = _array("ws", ws)
    buffer = io.BytesIO()
    if os.fspath(path).endswith(".npy"):
        np.save(buffer, array, allow_pickle=False)
    else:
        np.savez(buffer, w=array)
    write_atomically(path, buffer.getvalue())


def save_noise(path: PathLike, noise: Mapping[str, Tensor]) -> None:
    """Write noise maps as npz, atomically.

    Args:
        path: the file; its folder must exist.
        noise: name (as in `Generator.noise_names`) -> [H, W] or [N, H, W], float; may be empty.

    Raises:
        ValueError: a name with other characters than letters, digits, `_`, `.` and `-`, or a map
            of another shape or with a value that is not finite.
    """
    arrays = {}
    for name, value in noise.items():
        # Arguments of np.savez cannot be names of arrays.
        if not _NAME.fullmatch(name) or name in ("file", "allow_pickle"):
            raise ValueError(f"noise: {name!r} is no name of a noise map")
        if value.ndim not in (2, 3):
            raise ValueError(f"{name}: expected [H, W] or [N, H, W], got {list(value.shape)}")
        arrays[name] = _array(name, value)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load_latents(
    path: PathLike,
    *,
    num_ws: int | None = None,
    w_dim: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Read latents from .npz, .npy or a file of torch.save.

    Args:
        path: the file. Known layouts: a bare array; an npz with `w` (NVIDIA's projectors) or one
            array; a tensor (e4e's latents.pt, PTI's pivots); a dict, also one pickled by np.save
            (ReStyle), also nested (rosinality's projector).
        num_ws: rows that the generator reads; with `w_dim`, the result is [N, num_ws, w_dim].
        w_dim: width of a row.
        name: which array of a file with several; nested names are joined by "/". None takes the
            only one there is, or the only one that is called w, latent or alike.

    Returns:
        float32, finite, in the shape of the file unless `num_ws` and `w_dim` are given.

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = load_arrays(path)
    chosen = _choose(path, arrays, name, _LATENT_NAMES)
    ws = arrays[chosen]
    place = f"entry {ascii(chosen)}" if chosen else ""
    if ws.ndim not in (1, 2, 3) or not ws.numel():
        _fail(path, f"latents of shape {list(ws.shape)}; expected 1 to 3 dimensions", place)
    return _fitted(path, ws, num_ws, w_dim, place)


def load_named_latents(
    path: PathLike, *, num_ws: int | None = None, w_dim: int | None = None
) -> dict[str, Tensor]:
    """Read latents of several pictures: name -> latents as `load_latents` returns them.

    Args, Raises: as `load_latents`; every array of the file must be a latent.
    """
    out = {}
    for name, value in load_arrays(path).items():
        place = f"entry {ascii(name)}" if name else ""
        if value.ndim not in (1, 2, 3) or not value.numel():
            _fail(path, f"latents of shape {list(value.shape)}; expected 1 to 3 dimensions", place)
        out[name] = _fitted(path, value, num_ws, w_dim, place)
    return out


def load_boundary(
    path: PathLike,
    *,
    num_ws: int | None = None,
    w_dim: int | None = None,
    name: str | None = None,
) -> Boundary:
    """Read a direction: InterFaceGAN's boundaries, e4e's directions, a mean of W.

    Args:
        path: .npy, .npz or a file of torch.save with an array [w_dim], [1, w_dim], [num_ws, w_dim]
            or [1, num_ws, w_dim]; in a dict or npz it is called boundary, direction or normal (or
            `name`), beside an optional number called intercept or bias.
        num_ws: rows that the generator reads; None accepts any number.
        w_dim: width of a row; None accepts any.
        name: which array of a file with several.

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = load_arrays(path)
    intercept = 0.0
    for key in [k for k in arrays if k.rsplit("/", 1)[-1] in _INTERCEPT_NAMES and k != name]:
        value = arrays.pop(key)
        if value.numel() != 1:
            _fail(path, f"an intercept of shape {list(value.shape)}", f"entry {ascii(key)}")
        intercept = float(value)
    normal = arrays[_choose(path, arrays, name, _BOUNDARY_NAMES)]
    shape = list(normal.shape)
    if normal.ndim == 3 and shape[0] == 1:
        normal = normal[0]
    if normal.ndim == 1:
        normal = normal[None]
    rows = (1, num_ws) if num_ws else range(1, 1 << 16)
    if normal.ndim != 2 or normal.shape[0] not in rows or normal.shape[1] != (w_dim or shape[-1]):
        wanted = w_dim or "w_dim"
        _fail(
            path,
            f"a direction of shape {shape}; expected [{wanted}], [1, {wanted}] or "
            f"[{num_ws or 'num_ws'}, {wanted}]",
        )
    if not bool(normal.any()):
        _fail(path, "a direction of zeros")
    return Boundary(normal.contiguous(), intercept)


def load_components(path: PathLike) -> Components:
    """Read GANSpace's principal components: a dict of `comp` [K, 1, w_dim], `mean` and `std` [K].

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = load_arrays(path)
    parts = []
    for names in (("comp", "act_comp"), ("mean", "act_mean"), ("std", "act_stdev")):
        found = [name for name in names if name in arrays]
        if not found:
            _fail(path, f"has no {names[0]}; its arrays are: {', '.join(_listed(arrays))}")
        parts.append(arrays[found[0]])
    directions, mean, scales = parts
    if directions.ndim == 3 and directions.shape[1] == 1:
        directions = directions[:, 0]
    if directions.ndim != 2 or not directions.numel():
        _fail(path, f"has shape {list(directions.shape)}; expected [K, 1, w_dim]", "comp")
    count, width = directions.shape
    if mean.numel() != width or scales.numel() != count or bool((scales < 0).any()):
        _fail(
            path,
            f"mean {list(mean.shape)} and std {list(scales.shape)} do not fit components "
            f"{list(directions.shape)}, or std is negative",
        )
    return Components(directions.contiguous(), mean.reshape(width), scales.reshape(count))


def load_noise(path: PathLike) -> dict[str, Tensor]:
    """Read noise maps: name -> [H, W] or [N, H, W], float32, finite.

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = load_arrays(path)
    for name, array in arrays.items():
        if not name:
            _fail(path, "is a single array; expected an npz with one array for each noise map")
        if array.ndim not in (2, 3):
            _fail(path, f"shape {list(array.shape)}; expected [H, W] or [N, H, W]", name)
    return arrays


def _array(name: str, value: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.detach().to("cpu", torch.float32).contiguous().numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return array


def _fail(path: PathLike, reason: str, place: str = "") -> NoReturn:
    raise CheckpointError(os.fspath(path), reason, place)


def load_arrays(path: PathLike) -> dict[str, Tensor]:
    """Every array of a file by name ("" for a bare one), float32 and finite.

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    return read_arrays(Source.open(path, max_bytes=MAX_ARRAY_FILE_BYTES))


def _listed(arrays: Mapping[str, Tensor]) -> list[str]:
    return [ascii(name)[1:-1][:60] for name in sorted(arrays)[:8]] or ["none"]


def _choose(
    path: PathLike, arrays: Mapping[str, Tensor], name: str | None, known: tuple[str, ...]
) -> str:
    """The name of the wanted array."""
    if name is not None:
        if name not in arrays:
            _fail(path, f"has no array called {ascii(name)[:80]}: {', '.join(_listed(arrays))}")
        return name
    if len(arrays) == 1:
        return next(iter(arrays))
    found = [key for key in arrays if key.rsplit("/", 1)[-1] in known]
    exact = [key for key in known if key in arrays]
    if exact or len(found) == 1:
        return (exact or found)[0]
    _fail(
        path,
        f"has {'several arrays' if found else 'no array'} called {known[0]} or alike; there are "
        f"{len(arrays)}, say which: {', '.join(_listed(arrays))}",
    )


def _fitted(
    path: PathLike, ws: Tensor, num_ws: int | None, w_dim: int | None, place: str
) -> Tensor:
    if num_ws is None or w_dim is None:
        return ws
    try:
        return normalise_latents(ws, num_ws=num_ws, w_dim=w_dim)
    except ValueError as error:
        _fail(path, str(error), place)
