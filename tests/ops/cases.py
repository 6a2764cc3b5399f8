"""Tables of arguments for the ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyfacelat.ops import ACTIVATIONS, default_gain, setup_filter
from pyfacelat.ops.conv2d_resample import filter_taps, resampled_size
from pyfacelat.ops.conv3x3 import reference_pack
from tests.tolerances import ALL_DTYPES, Case, channels_last, strided

FIR = setup_filter([1, 3, 3, 1]).double()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def upfirdn2d_case(
    name: str,
    size: tuple[int, int, int, int],
    f: Tensor = FIR,
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip: bool = False,
    gain: float = 1.0,
    **options: Any,
) -> Case:
    args = (randn(*size), f, up, down, list(pad), flip, gain)
    return Case(name, args, **options)


UNEVEN = randn(3, 5, seed=7)
RANK_ONE = torch.outer(randn(6, seed=8), randn(3, seed=9))
SMALL = (2, 3, 5, 7)

UPFIRDN2D = [
    upfirdn2d_case("filter", SMALL, pad=(2, 1, 2, 1), check=True, twice=True, dtypes=ALL_DTYPES),
    upfirdn2d_case(
        "up2", SMALL, up=2, pad=(2, 1, 2, 1), gain=4.0, check=True, twice=True, dtypes=ALL_DTYPES
    ),
    upfirdn2d_case("down2", SMALL, down=2, pad=(1, 1, 1, 1), check=True, dtypes=ALL_DTYPES),
    upfirdn2d_case("up2 NHWC", SMALL, up=2, pad=(2, 1, 2, 1), layout=channels_last, check=True),
    upfirdn2d_case("down2 NHWC", SMALL, down=2, pad=(1, 1, 1, 1), layout=channels_last),
    upfirdn2d_case("filter NHWC", SMALL, pad=(1, 2, 1, 2), layout=channels_last),
    upfirdn2d_case("wide NHWC up2", (1, 37, 6, 5), up=2, pad=(2, 1, 2, 1), layout=channels_last),
    upfirdn2d_case("wide NHWC down2", (2, 37, 6, 5), down=2, layout=channels_last),
    upfirdn2d_case("strided", SMALL, up=2, pad=(2, 1, 2, 1), layout=strided),
    upfirdn2d_case("uneven", SMALL, UNEVEN, pad=(3, 2, 1, 4), flip=True),
    upfirdn2d_case("uneven up3 down2", SMALL, UNEVEN, 3, 2, (4, 3, 2, 5), gain=0.7, check=True),
    upfirdn2d_case("uneven up2 NHWC", SMALL, UNEVEN, 2, 1, (4, 3, 2, 5), layout=channels_last),
    upfirdn2d_case("rank one", (1, 2, 9, 11), RANK_ONE, 2, 3, (3, 1, 4, 2)),
    upfirdn2d_case("1-D filter", SMALL, randn(7, seed=3), 2, 1, (5, 3, 4, 2), gain=-1.7),
    upfirdn2d_case("crop", (1, 2, 8, 9), pad=(-2, 3, 4, -1)),
    upfirdn2d_case("crop into padding", (1, 2, 3, 1), torch.ones(1, 1), pad=(-2, 5, 4, -3)),
    upfirdn2d_case("one pixel", (1, 1, 1, 1), up=2, pad=(2, 1, 2, 1)),
    upfirdn2d_case("empty batch", (0, 3, 5, 7), up=2, pad=(2, 1, 2, 1), check=True),
    upfirdn2d_case("long filter", (1, 2, 20, 21), randn(12, seed=4), 2, 2, (6, 5, 6, 5)),
    upfirdn2d_case("zero filter", SMALL, torch.zeros(3, 3), pad=(1, 1, 1, 1)),
]


def bias_act_case(
    name: str, act: str, size: tuple[int, ...], dim: int = 1, bias: bool = True, **options: Any
) -> Case:
    clamp, gain = options.pop("clamp", -1.0), options.pop("gain", default_gain(act))
    b = randn(size[dim], seed=5) if bias else None
    args = (randn(*size), b, dim, act, options.pop("alpha", 0.2), gain, clamp)
    return Case(name, args, gradients=(0, 1) if bias else (0,), **options)


BIAS_ACT = [
    *(
        bias_act_case(act, act, (2, 5, 3, 7), check=True, twice=True, dtypes=ALL_DTYPES)
        for act in ACTIVATIONS
    ),
    *(
        bias_act_case(
            f"{act} clamp", act, (2, 3, 3, 7), clamp=0.4, check=act == "swish", twice=True
        )
        for act in ACTIVATIONS
    ),
    bias_act_case("no bias", "lrelu", (2, 5, 3, 7), bias=False),
    bias_act_case("NHWC", "lrelu", (2, 5, 3, 7), layout=channels_last, check=True),
    bias_act_case("NHWC wide", "swish", (2, 67, 3, 3), layout=channels_last),
    bias_act_case("strided", "tanh", (2, 5, 3, 7), layout=strided),
    bias_act_case("2-D", "lrelu", (7, 33)),
    bias_act_case("1-D", "lrelu", (33,), dim=0),
    bias_act_case("last dim", "relu", (2, 3, 5), dim=2),
    bias_act_case("first dim", "sigmoid", (4, 3, 5), dim=0),
    bias_act_case("slope 0.3, gain 0.5", "lrelu", (2, 5, 3, 7), alpha=0.3, gain=0.5),
    bias_act_case("empty batch", "lrelu", (0, 5, 3, 7), check=True),
    bias_act_case("odd length", "swish", (1, 1, 1031), dim=1),
]


def modulated_arguments(
    n: int = 2,
    i: int = 3,
    o: int = 5,
    size: tuple[int, int] = (5, 7),
    k: int = 3,
    up: int = 1,
    down: int = 1,
    f: Tensor | None = FIR,
    demod: bool = True,
    noise: str = "each",
    bias: bool = True,
    flip: bool = True,
    act: str = "lrelu",
    gain: float = 2**0.5,
    clamp: float = -1.0,
) -> tuple[Any, ...]:
    """Arguments of the registered op, with the padding that StyleGAN2 uses."""
    f = f if up > 1 or down > 1 else None
    h, w = resampled_size(size, (k, k), filter_taps(f), up, down, [k // 2] * 4)
    maps = {"each": n, "shared": 1}.get(noise)
    return (
        randn(n, i, *size),
        randn(o, i, k, k, seed=1) / (i * k * k) ** 0.5,
        randn(n, i, seed=2) + 1,
        randn(n, o, seed=3).abs() + 0.5 if demod else None,
        randn(maps, 1, h, w, seed=4) if maps is not None else None,
        randn(o, seed=5) if bias else None,
        f,
        up,
        down,
        k // 2,
        flip,
        act,
        0.2,
        gain,
        clamp,
    )


def modulated_case(name: str, *, options: dict[str, Any] | None = None, **arguments: Any) -> Case:
    args = modulated_arguments(**arguments)
    tensors = tuple(i for i in range(6) if args[i] is not None)
    return Case(name, args, gradients=tensors, **(options or {}))


CHECK = {"check": True}
NHWC = {"layout": channels_last}
MODULATED_CONV2D = [
    modulated_case("conv", options={**CHECK, "dtypes": ALL_DTYPES}, noise="shared"),
    modulated_case("conv NHWC", options=NHWC),
    modulated_case("up2", options=CHECK, up=2, flip=False),
    modulated_case("up2 NHWC", options=NHWC, up=2, flip=False, noise="shared"),
    modulated_case("up2 correlated", up=2, flip=True, clamp=1.0),
    modulated_case("up2 1-D filter", up=2, f=torch.tensor([1.0, 3, 3, 1]) / 8, flip=False),
    modulated_case("up2 no filter", up=2, f=None),
    modulated_case("up3", up=3, size=(4, 3)),
    modulated_case("down2", down=2, size=(8, 6)),
    modulated_case("up2 down2", up=2, down=2),
    modulated_case("1x1 up2", k=1, up=2, options=NHWC),
    modulated_case("1x1 down2", k=1, down=2, size=(8, 6)),
    modulated_case("5x5", k=5),
    modulated_case(
        "to rgb", k=1, o=3, demod=False, noise="none", act="linear", gain=1.0, clamp=1.5,
        options={**NHWC, "check": True},
    ),
    modulated_case("relu clamp", act="relu", clamp=1.0, options=CHECK),
    modulated_case("no bias, noise", bias=False, noise="none"),
    modulated_case("strided", up=2, flip=False, options={"layout": strided}),
    modulated_case("one image", n=1, i=4, o=2, size=(17, 19), options=NHWC),
    modulated_case("wide", n=2, i=19, o=33, size=(9, 6), options=NHWC),
    modulated_case("many pixels", n=1, i=3, o=17, size=(33, 35), options=NHWC),
    modulated_case("one pixel", size=(1, 1), up=2, flip=False),
    modulated_case("empty batch", n=0, noise="shared", options=CHECK),
]  # fmt: skip


WINOGRAD_UNITS = 128.0
"""Floor of F(4x4, 3x3): its transforms magnify the rounding of the products.

Measured against float64 on unit-variance maps and He weights of 64 to 512 channels, one pass: at
most 1.3e-5 of the RMS where oneDNN's direct sum has 3e-6 to 9e-6 (docs/measurements.md); 128 units
of float32 are 1.5e-5.
"""


def conv3x3_case(
    name: str,
    n: int = 2,
    i: int = 16,
    o: int = 32,
    size: tuple[int, int] = (8, 12),
    act: str = "lrelu",
    bias: bool = True,
    gain: float = 2**0.5,
    affine: bool = False,
    **options: Any,
) -> Case:
    """Arguments of the registered op, with weights that are packed for it."""
    weight = randn(o, i, 3, 3, seed=1) / max(i * 9, 1) ** 0.5
    packed = [reference_pack(weight, t) for t in (False, True)]
    b = randn(o, seed=2) if bias else None
    before = (randn(i, seed=3), randn(i, seed=4)) if affine else (None, None)
    args = (randn(n, i, *size), weight, *packed, b, act, 0.2, gain, *before)
    return Case(name, args, units=WINOGRAD_UNITS, **options)


CONV3X3 = [
    conv3x3_case("plain", act="linear", bias=False, gain=1.0, layout=channels_last),
    conv3x3_case("relu", act="relu", gain=1.0, layout=channels_last),
    conv3x3_case("lrelu NCHW"),
    conv3x3_case("bias, gain", act="linear", gain=0.7),
    conv3x3_case("strided", layout=strided),
    conv3x3_case("after relu", affine=True, act="linear", layout=channels_last),
    conv3x3_case("after relu, odd", affine=True, i=21, o=43, size=(9, 6)),
    conv3x3_case("odd size", size=(11, 7), layout=channels_last),
    conv3x3_case("odd channels", i=21, o=43, size=(9, 6), layout=channels_last),
    conv3x3_case("three outputs", i=17, o=3, layout=channels_last),
    conv3x3_case("one tile", n=1, size=(4, 4), layout=channels_last),
    conv3x3_case("narrower than a tile", n=1, i=32, size=(2, 9), layout=channels_last),
    conv3x3_case("a row", n=1, i=32, size=(1, 40), layout=channels_last),
    conv3x3_case("one pixel", n=3, size=(1, 1)),
    conv3x3_case("three images", n=3, i=40, o=72, size=(13, 10), layout=channels_last),
    conv3x3_case("many tiles", n=1, i=16, o=16, size=(50, 70), act="linear", layout=channels_last),
    conv3x3_case("long sums", n=1, i=300, o=40, size=(6, 7), act="linear", layout=channels_last),
    conv3x3_case("few channels", i=3, o=5, size=(5, 7), check=True, twice=True, dtypes=ALL_DTYPES),
    conv3x3_case("relu checked", i=2, o=3, size=(4, 3), act="relu", check=True, twice=True),
    conv3x3_case("after relu checked", affine=True, i=2, o=3, size=(4, 3), check=True, twice=True),
    conv3x3_case("16 bits", i=16, o=16, act="linear", dtypes=ALL_DTYPES),
    conv3x3_case("empty batch", n=0, check=True),
]
