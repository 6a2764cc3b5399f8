"""Boundaries: planes that part latents with an attribute from those without (InterFaceGAN).

A boundary is a plane in Z, W, W+ or whitened W, found by a linear support vector machine on latents
whose pictures score high and low (Shen et al. 2020, arXiv:1907.10786). It carries two vectors,

    distance(x) = normal . x + offset        edit(x) = x + (change of distance) * step

with normal . step = 1. In Z, W and W+ both are the unit normal. In whitened W, where
v = M^-1 (w - mean) and the plane is n . v + b, they are normal = M^-T n and step = M n: distances
are in standard deviations, and an edit goes the way that stays likeliest, not the shortest way
in W. So a boundary needs no statistics to be used.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyfacelat.edits.morph import Coordinates
from pyfacelat.edits.rows import Rows, row_indices
from pyfacelat.errors import CheckpointError, ConfigError, MissingPackageError
from pyfacelat.files import write_atomically
from pyfacelat.latents import Boundary as SharedBoundary
from pyfacelat.latents import load_arrays, load_boundary

__all__ = ["Boundary", "BoundarySpace", "condition", "fit_boundary", "select", "whitened"]

BoundarySpace = Literal["z", "w", "w+"]

_MALFORMED = (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError)
_ABOUT_CODES = 4096  # longest JSON text in a file, in characters


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A plane, and the way across it.

    Attributes:
        normal: [D] in Z and W, [L,D] in W+; float32.
        step: the same shape; normal . step = 1 (sums over all entries).
        offset: of the distance.
        space: of the latents that it is applied to.
        about: what else is known: attribute, accuracies, counts; JSON values.
    """

    normal: Tensor
    step: Tensor
    offset: float
    space: BoundarySpace
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.space not in get_args(BoundarySpace):
            raise ConfigError(
                f"space: expected one of {get_args(BoundarySpace)}, got {self.space!r}"
            )
        wanted = 2 if self.space == "w+" else 1
        if self.normal.ndim != wanted or self.step.shape != self.normal.shape:
            raise ConfigError(
                f"normal: expected {'[L, D]' if wanted == 2 else '[D]'} in {self.space}, and a "
                f"step of the same shape, got {list(self.normal.shape)}, {list(self.step.shape)}"
            )

    def distance(self, codes: Tensor) -> Tensor:
        """Signed distances [...] of codes [...,D] (Z, W) or [...,L,D] (W+); positive: has it."""
        normal = self.normal.to(codes)
        dims = tuple(range(-normal.ndim, 0))
        return (codes * normal).sum(dims) + self.offset

    def at(self, codes: Tensor, distances: Tensor | Sequence[float]) -> Tensor:
        """Move each code to the given signed distances from the plane.

        Args:
            codes: [N,D], or [N,L,D] in W+.
            distances: [S].

        Returns:
            [N,S,D] or [N,S,L,D].
        """
        wanted = torch.as_tensor(distances).to(codes)
        return self.shift(codes, wanted - self.distance(codes)[:, None])

    def shift(self, codes: Tensor, changes: Tensor | Sequence[float]) -> Tensor:
        """Change each code's distance by the given amounts.

        Args:
            codes: [N,D], or [N,L,D] in W+.
            changes: [S], or [N,S].

        Returns:
            [N,S,D] or [N,S,L,D].
        """
        by = torch.as_tensor(changes).to(codes)
        by = by.expand(len(codes), -1) if by.ndim == 1 else by
        tail = (1,) * self.step.ndim
        return codes[:, None] + by.reshape(*by.shape, *tail) * self.step.to(codes)

    def edit_ws(
        self,
        ws: Tensor,
        distances: Tensor | Sequence[float],
        *,
        relative: bool | None = None,
        rows: Rows = None,
    ) -> Tensor:
        """Edit a generator's ws with a boundary in W, whitened W or W+.

        Args:
            ws: [N,L,D].
            distances: [S], in the boundary's unit.
            relative: True: they are the distances from the plane that the results have; False:
                they are added to what the codes have. None: True where all chosen rows of ws are
                one W, or the boundary is in W+ and moves all rows; False for others, whose rows
                lie at different distances.
            rows: which rows move; see `row_indices`. Only for boundaries of one row.

        Returns:
            [N,S,L,D].

        Raises:
            ConfigError: the boundary is in Z, does not fit, or cannot do what is asked.
        """
        if self.space == "z":
            raise ConfigError("boundary: it is in Z; edit z and map it, or fit one in W")
        if ws.ndim != 3 or self.normal.shape[-1] != ws.shape[2]:
            raise ConfigError(
                f"boundary: has width {self.normal.shape[-1]}, the latents are {list(ws.shape)}"
            )
        if self.space == "w+":
            if self.normal.shape != ws.shape[1:]:
                raise ConfigError(
                    f"boundary: is {list(self.normal.shape)}, the latents are {list(ws.shape)}"
                )
            if rows is not None and row_indices(rows, ws.shape[1]) != list(range(ws.shape[1])):
                raise ConfigError("rows: a boundary in W+ moves all rows; give none")
            return self.shift(ws, distances) if relative is False else self.at(ws, distances)
        chosen = row_indices(rows, ws.shape[1])
        moving = ws[:, chosen]  # [N,R,D]
        alike = bool((moving == moving[:, :1]).all())
        if relative and not alike:
            raise ConfigError(
                "relative: the rows of these latents lie at different distances from a boundary of "
                "one row; use relative=False"
            )
        if alike and relative is not False:
            edited = self.at(moving[:, 0], distances)[:, :, None]  # [N,S,1,D]
        else:
            flat = self.shift(moving.flatten(0, 1), distances)  # [N*R,S,D]
            edited = flat.unflatten(0, moving.shape[:2]).transpose(1, 2)  # [N,S,R,D]
        out = ws[:, None].repeat(1, edited.shape[1], 1, 1)
        out[:, :, chosen] = edited.expand(-1, -1, len(chosen), -1)
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write, atomically; .npy is the bare step [1,D] or [L,D], others an npz with everything.

        A bare file is what InterFaceGAN reads; offset and whitening are lost in it.
        """
        buffer = io.BytesIO()
        if os.fspath(path).endswith(".npy"):
            rows = self.step if self.step.ndim == 2 else self.step[None]
            np.save(buffer, rows.cpu().float().numpy(), allow_pickle=False)
        else:
            about = json.dumps({"space": self.space, "about": self.about}, allow_nan=False)
            if len(about) > _ABOUT_CODES:
                raise ConfigError(f"about: expected at most {_ABOUT_CODES} characters of JSON")
            np.savez(
                buffer,
                normal=self.normal.cpu().float().numpy(),
                step=self.step.cpu().float().numpy(),
                intercept=np.array([self.offset], np.float32),
                # Text as numbers: an npz reader that takes no other dtype need not be loosened.
                about=np.array([ord(letter) for letter in about], np.float32),
            )
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str], *, space: BoundarySpace | None = None) -> Boundary:
        """Read a boundary that `save` wrote, or a shared one as `latents.load_boundary` does.

        Args:
            path: the file.
            space: of a shared vector; None takes W for one row and W+ for more. One row is scaled
                to length 1 (as InterFaceGAN's are), its intercept with it.

        Raises:
            CheckpointError: it is neither, or not consistent.
            FileNotFoundError: there is no such file.
        """
        arrays = load_arrays(path)
        if "step" not in arrays:
            return _shared(path, load_boundary(path), space)
        try:
            text = "".join(chr(int(code)) for code in arrays["about"][:_ABOUT_CODES])
            told = json.loads(text)
            boundary = Boundary(
                arrays["normal"],
                arrays["step"],
                float(arrays["intercept"][0]),
                told["space"],
                dict(told["about"]),
            )
        except _MALFORMED as error:
            raise CheckpointError(path, f"is no boundary of ours: {error}") from None
        unit = float((boundary.normal.double() * boundary.step.double()).sum())
        if not math.isclose(unit, 1, abs_tol=1e-3):
            raise CheckpointError(path, f"normal . step is {unit:g}, expected 1")
        return boundary


def select(
    scores: Tensor, share: float = 0.02, *, invalid_value: float | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of the highest and of the lowest scores.

    Args:
        scores: [n], float; entries that are not finite or equal `invalid_value` are left out.
        share: of the valid ones on each side if below 1, else their count.
        invalid_value: marks latents whose picture could not be scored.

    Returns:
        (positive [k], negative [k]), int64, disjoint.

    Raises:
        ConfigError: fewer than two on each side, or more than half.
    """
    if scores.ndim != 1:
        raise ConfigError(f"scores: expected [n], got {list(scores.shape)}")
    valid = torch.isfinite(scores)
    if invalid_value is not None:
        valid &= scores != invalid_value
    index = valid.nonzero()[:, 0]
    count = int(len(index) * share) if share < 1 else int(share)
    if not 2 <= count <= len(index) // 2:
        raise ConfigError(
            f"share: {share:g} of {len(index)} valid scores is {count} on each side; expected at "
            "least 2 and at most half of them"
        )
    order = index[scores[index].argsort(stable=True)]
    return order[-count:], order[:count]


def fit_boundary(
    codes: Tensor,
    scores: Tensor,
    *,
    space: BoundarySpace,
    share: float = 0.02,
    split: float = 0.7,
    invalid_value: float | None = None,
    c: float = 1.0,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> Boundary:
    """Fit a plane between the latents with the highest and those with the lowest scores.

    Args:
        codes: [n,D] in Z or W (or whitened; see `whitened`), [n,L,D] in W+; float.
        scores: [n]; which latents count is said in `select`.
        space: of the codes.
        share: of the samples on each side; see `select`.
        invalid_value: score of samples to leave out; see `select`.
        split: share of the selected latents that is trained on; the rest tells the accuracy.
        c: the machine's penalty of wrong ones, for codes scaled to unit variance.
        seed: of the split.
        about: to keep with the boundary, e.g. the attribute's name.

    Returns:
        The boundary, its normal of length 1; `about` has the accuracies "train", "validation" and
        "remaining" (latents in between, called positive when their score is nearer to the lowest
        of the positive ones than to the highest of the negative ones), and the counts.

    Raises:
        ConfigError: shapes or numbers that do not fit.
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.svm import SVC  # type: ignore[import-untyped]
    except ImportError:
        raise MissingPackageError(
            "scikit-learn fits boundaries and is not installed; pip install 'pyfacelat[edit]'"
        ) from None
    if len(codes) != len(scores) or codes.ndim != (3 if space == "w+" else 2):
        raise ConfigError(
            f"codes: expected {'[n, L, D]' if space == 'w+' else '[n, D]'} in {space} with one "
            f"score each, got {list(codes.shape)} and {len(scores)} scores"
        )
    if not 0 < split < 1:
        raise ConfigError(f"split: expected a number between 0 and 1, got {split}")
    positive, negative = select(scores, share, invalid_value=invalid_value)
    flat = codes.detach().cpu().double().flatten(1).numpy()
    scores = scores.detach().cpu()
    # One scale for all directions leaves the plane what it is, and gives c a meaning.
    scale = float(flat.std()) or 1.0

    training = max(1, min(round(len(positive) * split), len(positive) - 1))
    source = torch.Generator().manual_seed(seed)
    orders = [side[torch.randperm(len(side), generator=source)] for side in (positive, negative)]
    parts = {
        "train": [order[:training] for order in orders],
        "validation": [order[training:] for order in orders],
    }
    index, labels = _labelled(parts["train"])
    machine = SVC(kernel="linear", C=c).fit(flat[index] / scale, labels)
    weights = np.asarray(machine.coef_[0], np.float64)
    length = float(np.linalg.norm(weights))
    if not length > 0:
        raise ConfigError("codes: high and low scores lie in the same place; no plane parts them")
    unit = weights / length
    offset = float(machine.intercept_[0]) / length * scale

    middle = (float(scores[positive].min()) + float(scores[negative].max())) / 2
    selected = set(torch.cat([positive, negative]).tolist())
    rest = [
        i
        for i in torch.isfinite(scores).nonzero()[:, 0].tolist()
        if i not in selected and (invalid_value is None or float(scores[i]) != invalid_value)
    ]
    tables = {name: _labelled(part) for name, part in parts.items()}
    tables["remaining"] = (np.array(rest, int), (scores[rest] > middle).long().numpy())
    accuracy = {
        name: round(float(((flat[i] @ unit + offset > 0) == (y > 0)).mean()), 4)
        for name, (i, y) in tables.items()
        if len(i)
    }
    normal = torch.from_numpy(unit).float().reshape(codes.shape[1:])
    told = {"accuracy": accuracy, "selected": 2 * len(positive), "samples": len(codes)}
    return Boundary(normal, normal, offset, space, {**(about or {}), **told})


def whitened(boundary: Boundary, space: Coordinates, like: Tensor) -> Boundary:
    """Express a boundary that was fitted on whitened codes [n,D] as one on w.

    Args:
        boundary: in the space "w" as `fit_boundary` returns it, but for v.
        space: with v = (w - mean) M^-1 and w = mean + v M; `projection.space.LatentSpace`.
        like: any tensor in the dtype and on the device of the space.
    """
    if boundary.space != "w":
        raise ConfigError(f"boundary: expected one of whitened rows, got space {boundary.space!r}")
    n = boundary.normal.to(like)
    origin = space.to_ws(torch.zeros_like(n)[None, None])[0, 0]
    step = space.to_ws(n[None, None])[0, 0] - origin
    # normal . w + offset = n . v(w) + b: the columns of from_ws, read off at the unit vectors.
    eye = torch.eye(len(n)).to(like)
    rows = space.to_ws(torch.zeros_like(n)[None, None]).shape[-2]
    at = space.from_ws((origin + eye)[:, None].expand(-1, rows, -1))[:, 0]  # [D,D]: v(origin + e_i)
    normal = at @ n
    offset = boundary.offset - float((normal.double() * origin.double()).sum())
    return Boundary(normal.cpu(), step.cpu(), offset, "w", {**boundary.about, "whitened": True})


def condition(boundary: Boundary, others: Sequence[Boundary]) -> Boundary:
    """Take out of a boundary's step what would change the distance from other boundaries.

    The part of the normal that lies in the others' span is removed and the rest scaled to length 1
    (in whitened coordinates where the boundaries are whitened), so that
    other.normal . result.step = 0 for each.

    Raises:
        ConfigError: other spaces, shapes or coordinates, or nothing remains.
    """
    for other in others:
        same = (other.space, other.normal.shape, "whitened" in other.about)
        if same != (boundary.space, boundary.normal.shape, "whitened" in boundary.about):
            raise ConfigError(
                f"others: expected boundaries in {boundary.space} of shape "
                f"{list(boundary.normal.shape)}, all whitened or none, got {other.space} of "
                f"{list(other.normal.shape)}"
            )
    if not others:
        return boundary
    normals = torch.stack([b.normal.double().flatten() for b in (boundary, *others)])
    steps = torch.stack([b.step.double().flatten() for b in (boundary, *others)])
    gram = normals @ steps.T  # of the coordinates in which the planes were fitted
    gram = (gram + gram.T) / 2
    # lstsq: conditions may repeat one another.
    shares = torch.linalg.lstsq(gram[1:, 1:], gram[1:, :1], driver="gelsd").solution[:, 0]
    factors = torch.cat([torch.ones(1, dtype=shares.dtype), -shares])
    normal, step = factors @ normals, factors @ steps
    length = float((normal @ step).clamp_min(0).sqrt())
    if length < 1e-4:
        raise ConfigError("others: together they say what the boundary says; nothing remains")
    names = [str(other.about.get("attribute", "unnamed")) for other in others]
    shape = boundary.normal.shape
    return Boundary(
        (normal / length).float().reshape(shape),
        (step / length).float().reshape(shape),
        # The plane keeps its distance from the codes that lie on all the planes.
        float((factors @ torch.tensor([b.offset for b in (boundary, *others)]).double()) / length),
        boundary.space,
        {**boundary.about, "conditions": names},
    )


def _labelled(sides: Sequence[Tensor]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Indices of both sides, and labels 1 and 0."""
    index = torch.cat(list(sides)).numpy()
    return index, np.repeat([1, 0], [len(side) for side in sides])


def _shared(
    path: str | os.PathLike[str], found: SharedBoundary, space: BoundarySpace | None
) -> Boundary:
    rows = found.normal
    space = space or ("w" if len(rows) == 1 else "w+")
    vector = rows[0] if space != "w+" and len(rows) == 1 else rows
    squared = float(vector.double().square().sum())
    try:
        if space == "w+":
            # Kept as shared, where the length of a direction for all rows is part of it.
            return Boundary(vector / squared, vector, found.intercept / squared, space)
        length = math.sqrt(squared)
        return Boundary(vector / length, vector / length, found.intercept / length, space)
    except ConfigError as error:
        raise CheckpointError(path, str(error)) from None
