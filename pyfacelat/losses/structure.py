"""MS-SSIM: how alike two images are in light, contrast and structure at several scales.

Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment".
With l, c and s from Gaussian windows of 11 pixels and sigma 1.5, per colour channel,

    MS-SSIM = (l c s at the coarsest scale)^w_M * product over finer scales j of (c s)_j^w_j

negative similarities counting as 0, the images halved by 2x2 means from scale to scale. Equal to
the pytorch_msssim package where that one runs: five scales from 161 pixels on. Smaller images have
fewer, the first of the five weights scaled up to the same sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first."""

_WINDOW = 11  # pixels
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for a range of 1


def num_scales(height: int, width: int) -> int:
    """Scales at which the coarsest image is still larger than the window less one; at most 5.

    Raises:
        ValueError: a side is below 11 pixels, so that there is none.
    """
    side = min(height, width)
    if side < _WINDOW:
        raise ValueError(f"images: MS-SSIM needs at least {_WINDOW} pixels, got {height} x {width}")
    scales = 1
    while scales < len(WEIGHTS) and side > (_WINDOW - 1) << scales:
        scales += 1
    return scales


def ms_ssim(images: Tensor, target: Tensor) -> Tensor:
    """MS-SSIM of images and targets [N,C,H,W] in [-1, 1], sides >= 11. Returns [N], 1 if equal."""
    x, y = (images + 1) / 2, (target + 1) / 2
    scales = num_scales(x.shape[-2], x.shape[-1])
    weights = [weight * sum(WEIGHTS) / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales]]
    product: Tensor | None = None
    for scale, weight in enumerate(weights):
        if scale > 0:
            pad = [side % 2 for side in x.shape[-2:]]
            x, y = (F.avg_pool2d(image, 2, padding=pad) for image in (x, y))
        light, structure = _similarities(x, y)
        factor = light * structure if scale == scales - 1 else structure
        value = _power(factor.mean((2, 3)), weight)  # [N,C]
        product = value if product is None else product * value
    assert product is not None
    return product.mean(1)


def ms_ssim_distance(images: Tensor, target: Tensor) -> Tensor:
    """1 - MS-SSIM; arguments as `ms_ssim`. Returns [N], 0 if equal."""
    return 1 - ms_ssim(images, target)


def _similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of l and of c * s where the window fits, each [N,C,H-10,W-10]."""
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x.square()
    variance_y = _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    light = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return light, structure


def _blur(x: Tensor) -> Tensor:
    place = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    taps = torch.exp(-place.square() / (2 * _SIGMA**2))
    taps = taps / taps.sum()
    count, channels, height, width = x.shape
    planes = x.reshape(count * channels, 1, height, width)
    planes = F.conv2d(F.conv2d(planes, taps[None, None, :, None]), taps[None, None, None, :])
    return planes.reshape(count, channels, *planes.shape[-2:])


def _power(value: Tensor, exponent: float) -> Tensor:
    """max(value, 0)^exponent, with zero gradient where that would be infinite."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0) ** exponent, 0.0)
