"""The parameters of a procedural face, and the map from latent vectors to them.

A latent vector z [Z_DIM] is first normalised to unit second moment, as StyleGAN2's mapping
network does, so that a generator trained on these faces may normalise its input as usual. Each
parameter is then ``low + (high - low) * sigmoid(slope * z_i + offset)``: continuous, monotone,
bounded, with rare extremes. Hair tone is weakly coupled to skin tone.

Parameter vectors are float64 [N, Z_DIM], in the order of :data:`PARAMS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

TAGS = ("pose", "expression", "identity", "appearance")


@dataclass(frozen=True)
class Parameter:
    """One continuous parameter of a face.

    Attributes:
        name: unique name.
        tag: "pose", "expression", "identity" or "appearance".
        low, high: open bounds of the range that latents reach; render() accepts a quarter more.
        slope, offset: of the logistic squash of a standard normal latent.
        odd: True when mirroring the face negates it.
        text: what it does.

    """

    name: str
    tag: str
    low: float
    high: float
    slope: float = 1.3
    offset: float = 0.0
    odd: bool = False
    text: str = field(default="", compare=False)

    def squash(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map latents (any shape) to parameter values."""
        return self.low + (self.high - self.low) / (1.0 + np.exp(-(self.slope * z + self.offset)))

    def unsquash(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inverse of :meth:`squash`; values are pulled inside the open range by 1e-6 of it."""
        unit = np.clip((value - self.low) / (self.high - self.low), 1e-6, 1 - 1e-6)
        return (np.log(unit / (1 - unit)) - self.offset) / self.slope

    @cached_property
    def _moments(self) -> tuple[float, float]:
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        weights = weights / weights.sum()
        values = self.squash(nodes)
        mean = float(weights @ values)
        return mean, float(np.sqrt(weights @ (values - mean) ** 2))

    @property
    def mean(self) -> float:
        """Mean over a standard normal latent."""
        return self._moments[0]

    @property
    def sd(self) -> float:
        """Standard deviation over a standard normal latent."""
        return self._moments[1]


def _p(
    name: str,
    tag: str,
    low: float,
    high: float,
    slope: float = 1.3,
    offset: float = 0.0,
    *,
    odd: bool = False,
    text: str = "",
) -> Parameter:
    return Parameter(name, tag, low, high, slope, offset, odd, text)


PARAMS: tuple[Parameter, ...] = (
    _p("yaw", "pose", -42, 42, 0.8, odd=True, text="degrees, positive to the right of the image"),
    _p("pitch", "pose", -20, 20, 0.85, text="degrees, positive looks up"),
    _p("roll", "pose", -14, 14, 0.7, odd=True, text="degrees; alignment removes it from the face"),
    _p("jaw_open", "expression", -0.10, 1.0, 2.0, -1.5, text="0 shut, 1 wide open"),
    _p("smile", "expression", -0.7, 1.0, 1.8, 0.3, text="mouth corners down or up"),
    _p("smile_skew", "expression", -0.5, 0.5, 1.1, odd=True, text="image-right corner above left"),
    _p("pucker", "expression", -0.15, 1.0, 1.7, -1.2, text="lips rounded and forward"),
    _p("brow_raise", "expression", -0.8, 1.2, 1.6, text="both brows down or up"),
    _p("brow_skew", "expression", -0.55, 0.55, 1.3, odd=True, text="image-right brow above left"),
    _p("brow_frown", "expression", -0.3, 1.0, 1.6, -1.3, text="inner ends together and down"),
    _p("eye_open", "expression", -0.05, 1.35, 1.5, 1.1, text="0 shut, 1 relaxed"),
    _p("eye_skew", "expression", -0.30, 0.30, 0.9, odd=True, text="image-right lid above the left"),
    _p("gaze_x", "expression", -1, 1, 1.7, odd=True, text="positive to the right of the image"),
    _p("gaze_y", "expression", -1, 1, 1.4, text="positive up"),
    _p("face_width", "identity", 0.90, 1.12, text="scale of all widths"),
    _p("jaw_width", "identity", 0.88, 1.14, text="scale of the jaw against the temples"),
    _p("chin_length", "identity", 0.90, 1.12, text="scale of the chin's length"),
    _p("nose_width", "identity", 0.80, 1.30, text="scale of the nose's width"),
    _p("nose_length", "identity", 0.84, 1.14, text="scale from the eyes to the nose's base"),
    _p("eye_size", "identity", 0.86, 1.16, text="scale of both lids and iris"),
    _p("eye_spacing", "identity", 0.92, 1.08, text="scale of the distance between the eyes"),
    _p("brow_thickness", "identity", 0.5, 1.6, text="scale of the brows' height"),
    _p("lip_fullness", "identity", 0.65, 1.45, text="scale of the lips' height"),
    _p("mouth_width", "identity", 0.84, 1.16, text="scale of the mouth's width"),
    _p("skin_tone", "appearance", 0, 1, 1.6, -0.2, text="0 pale, 1 dark"),
    _p("hair_tone", "appearance", 0, 1, 1.7, -0.5, text="0 black, 1 blond"),
    _p("hair_hue", "appearance", -1, 1, 1.2, text="-1 ash, 1 red"),
    _p("iris_color", "appearance", 0, 1, 1.6, -0.2, text="brown, hazel, green, blue"),
    _p("hair_length", "appearance", 0, 1, 2.0, -0.4, text="0 above the ears, 1 on the shoulders"),
    _p("hair_volume", "appearance", 0, 1, 1.6, -0.2, text="thickness, most at the sides"),
    _p("hair_fringe", "appearance", 0, 1, 1.6, -0.3, text="0 high forehead, 1 fringe to the brows"),
    _p("hair_part", "appearance", -1, 1, 1.6, odd=True, text="where the hair parts"),
    _p("hair_curl", "appearance", -0.2, 1, 2.0, -0.9, text="0 or less straight, 1 curly"),
    _p("beard", "appearance", -0.3, 1, 2.2, -1.5, text="0 or less none, 1 full"),
    _p("lip_color", "appearance", -0.2, 1, 1.7, -1.2, text="0 or less natural, 1 painted"),
    _p(
        "light_azimuth",
        "appearance",
        -55,
        55,
        1.1,
        odd=True,
        text="degrees, positive from the right",
    ),
    _p("light_elevation", "appearance", 5, 60, 1.3, text="degrees above the horizon"),
    _p("background_light", "appearance", 0, 1, 1.4, text="dark to light"),
    _p("background_hue", "appearance", -1, 1, 1.3, text="cool to warm"),
)
Z_DIM = len(PARAMS)
_INDEX = {p.name: i for i, p in enumerate(PARAMS)}
# Darker skin makes darker hair likelier, as people expect: hair z' = a z_hair - b z_skin.
_HAIR_FROM_SKIN = 0.6
_HAIR_OWN = float(np.sqrt(1 - _HAIR_FROM_SKIN**2))
# Index of each landmark's counterpart under a left-right flip.
FLIP_LANDMARKS = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
     45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
     54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)  # fmt: skip


def names(tag: str | None = None) -> list[str]:
    """Parameter names in order, all or those of one tag."""
    if tag is not None and tag not in TAGS:
        raise ValueError(f"tag: expected one of {', '.join(TAGS)}, got {tag!r}")
    return [p.name for p in PARAMS if tag is None or p.tag == tag]


def index(name: str) -> int:
    """Column of the named parameter. Raises ValueError with the closest names."""
    if name not in _INDEX:
        import difflib

        near = ", ".join(difflib.get_close_matches(name, _INDEX, 3, 0.3)) or ", ".join(_INDEX)
        raise ValueError(f"unknown face parameter {name!r}; closest: {near}")
    return _INDEX[name]


def matrix(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Check `values` (named `what` in messages): finite float64 [N, Z_DIM], or one vector."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != Z_DIM:
        raise ValueError(f"{what}: expected shape [N, {Z_DIM}], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: expected finite values, got NaN or infinity")
    return array


def check_range(params: NDArray[np.float64]) -> None:
    """Raise ValueError when a value lies outside its range by more than a quarter of the range."""
    for i, p in enumerate(PARAMS):
        margin = 0.25 * (p.high - p.low)
        bad = (params[:, i] < p.low - margin) | (params[:, i] > p.high + margin)
        if bad.any():
            raise ValueError(
                f"params: {p.name} must lie in [{p.low - margin:g}, {p.high + margin:g}], "
                f"got {params[bad, i][0]:g}"
            )


def from_latent(z: ArrayLike, *, normalize: bool = True) -> NDArray[np.float64]:
    """Map latents [N, Z_DIM] to parameters [N, Z_DIM].

    Args:
        z: of any scale, since each row is normalised first.
        normalize: False takes z as standard-normal coordinates, as to_latent() gives them.
    """
    unit = matrix(z, "z").copy()
    if normalize:
        unit /= np.sqrt(np.mean(unit**2, axis=1, keepdims=True) + 1e-8)
    hair, skin = _INDEX["hair_tone"], _INDEX["skin_tone"]
    unit[:, hair] = _HAIR_OWN * unit[:, hair] - _HAIR_FROM_SKIN * unit[:, skin]
    return np.stack([p.squash(unit[:, i]) for i, p in enumerate(PARAMS)], axis=1)


def to_latent(params: ArrayLike) -> NDArray[np.float64]:
    """Invert from_latent() without its normalisation: standard-normal coordinates [N, Z_DIM].

    ``from_latent(to_latent(p), normalize=False)`` equals p; with normalisation it does when the row
    has unit second moment, and nearly so for samples (the second moment of Z_DIM normals is 1
    within a few per cent of the squash).
    """
    array = matrix(params, "params")
    z = np.stack([p.unsquash(array[:, i]) for i, p in enumerate(PARAMS)], axis=1)
    hair, skin = _INDEX["hair_tone"], _INDEX["skin_tone"]
    z[:, hair] = (z[:, hair] + _HAIR_FROM_SKIN * z[:, skin]) / _HAIR_OWN
    return z


def default(n: int = 1) -> NDArray[np.float64]:
    """Return n neutral frontal faces, eyes open, mouth shut, the rest at its mean: [n, Z_DIM]."""
    row = np.array([p.mean for p in PARAMS])
    neutral = {"jaw_open": 0.0, "smile": 0.1, "pucker": 0.0, "brow_raise": 0.1, "brow_frown": 0.0,
               "eye_open": 1.0, "beard": 0.0, "hair_curl": 0.0, "lip_color": 0.1}  # fmt: skip
    for name, value in neutral.items():
        row[_INDEX[name]] = value
    return np.repeat(row[None], n, axis=0)


def with_values(params: ArrayLike, **values: float | ArrayLike) -> NDArray[np.float64]:
    """Copy params [N, Z_DIM] with named columns replaced."""
    out: NDArray[np.float64] = matrix(params, "params").copy()
    for name, value in values.items():
        out[:, index(name)] = value
    return out


def _odd() -> NDArray[np.float64]:
    return np.array([-1.0 if p.odd else 1.0 for p in PARAMS])


def mirror(params: ArrayLike) -> NDArray[np.float64]:
    """Flip faces left to right. Also maps latents, because every odd squash is symmetric."""
    return matrix(params, "params") * _odd()


def compose(
    params_a: ArrayLike, params_b: ArrayLike, take: str | Sequence[str] = ("pose", "expression")
) -> NDArray[np.float64]:
    """Give face A the tagged (or singly named) parameters of face B: the exact ideal of a transfer.

    Both are [N, Z_DIM] or one vector, broadcast against each other. With the default `take` the
    result keeps the identity, hair, skin, light and background of A. Raises ValueError for an
    unknown tag or name.
    """
    a, b = np.broadcast_arrays(matrix(params_a, "params_a"), matrix(params_b, "params_b"))
    out: NDArray[np.float64] = a.copy()
    for what in (take,) if isinstance(take, str) else take:
        columns: Iterable[str] = names(what) if what in TAGS else [what]
        for name in columns:
            out[:, index(name)] = b[:, index(name)]
    return out


def sweep(
    name: str, values: ArrayLike | int = 7, base: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Vary one parameter and hold the rest: [len(values), Z_DIM].

    Args:
        name: parameter name.
        values: values [K], or a count of steps across the parameter's range.
        base: one parameter vector; the neutral face by default.

    """
    column = index(name)
    if isinstance(values, int):
        values = np.linspace(PARAMS[column].low, PARAMS[column].high, values)
    row = np.atleast_1d(np.asarray(values, dtype=np.float64))
    start = default() if base is None else matrix(base, "base")[:1]
    out: NDArray[np.float64] = np.repeat(start, len(row), axis=0)
    out[:, column] = row
    return out
