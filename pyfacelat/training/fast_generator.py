"""StyleGAN2's generator as a training forward for CPUs, over the parameters of `nets.Generator`.

Same function as `Generator.synthesis(generator.mapping(z))`, arranged for many small images:
activations are scaled in and out of one shared convolution, y = d * conv(x * s), so a batch needs
no grouped convolution and weights get one gradient; the [1, 3, 3, 1] filter after a transposed
convolution is three sums of adjacent pairs per axis (a depthwise convolution is several times
slower on a CPU); gains are folded into scales and biases (lrelu is positively homogeneous).
Activations and convolutions run in `dtype` (bfloat16 for training); mapping, styles, demodulation
and images stay float32.
Noise is left out: a face is a function of z here, and the trained noise strengths stay zero.
Formulas: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, section 2.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.nets.stylegan2 import Generator

__all__ = ["FastGenerator"]

_SQRT2 = math.sqrt(2.0)


def _pair_sums(x: Tensor) -> Tensor:
    """Correlate with [1,3,3,1]/4 along H and W, valid region only: [N,C,H,W] -> [N,C,H-3,W-3]."""
    for _ in range(3):
        x = x[:, :, 1:] + x[:, :, :-1]
    for _ in range(3):
        x = x[..., 1:] + x[..., :-1]
    return x * 0.0625


class _Blur(torch.autograd.Function):
    """[1,3,3,1]/4 with one pixel of zero padding: [N,C,2H+1,2W+1] -> [N,C,2H,2W].

    The filter is symmetric, so the gradient is the same sums over a wider border; autograd through
    the slices would fill a zero tensor for each of them (a sixth of the whole training step).
    """

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return _pair_sums(F.pad(x, (1, 1, 1, 1)))

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return _pair_sums(F.pad(grad, (2, 2, 2, 2)))


def _upsample_image(x: Tensor) -> Tensor:
    """upsample2d with [1,3,3,1]: bilinear doubling with zeros outside, [N,C,H,W] -> [N,C,2H,2W]."""
    x = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
    return x[:, :, 2:-2, 2:-2]


class FastGenerator:
    """Training forward over a `nets.Generator` (skip architecture, unconditional, no clamp).

    Args:
        generator: the module whose parameters are used; it is neither copied nor changed.
        dtype: of activations and convolutions.

    Raises:
        ValueError: the generator has a feature that this forward leaves out.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype = torch.float32) -> None:
        config = generator.config
        if config.architecture != "skip" or config.c_dim != 0 or config.conv_clamp is not None:
            raise ValueError(
                "generator: the training forward needs architecture 'skip', c_dim 0, no clamp; got "
                f"{config.architecture!r}, {config.c_dim}, {config.conv_clamp}"
            )
        if tuple(config.resample_filter) != (1, 3, 3, 1):
            raise ValueError(
                f"generator: resample_filter must be (1, 3, 3, 1), got {config.resample_filter}"
            )
        self.generator = generator
        self.dtype = dtype
        self.config = config
        names = dict(generator.named_parameters())
        self._p = names
        self.resolutions = [4 * 2**i for i in range(int(math.log2(config.img_resolution)) - 1)]

    def parameters_for(self, resolution: int) -> list[str]:
        """Names of the parameters that reach an image at `resolution`."""
        keep = {r for r in self.resolutions if r <= resolution}
        return [
            n
            for n in self._p
            if not n.startswith("synthesis.b") or int(n.split(".")[1][1:]) in keep
        ]

    def mapping(self, z: Tensor) -> Tensor:
        """Map z [N, z_dim] to w [N, w_dim], both float32; z is normalised first."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        m = self.config.mapping_lr_multiplier
        for i in range(self.config.num_mapping_layers):
            weight, bias = self._p[f"mapping.fc{i}.weight"], self._p[f"mapping.fc{i}.bias"]
            gain = _SQRT2 * m / math.sqrt(weight.shape[1])
            x = F.leaky_relu(F.linear(x, weight * gain, bias * (m * _SQRT2)), 0.2)
        return x

    def _style(self, name: str, w: Tensor) -> Tensor:
        weight = self._p[f"{name}.affine.weight"]
        return F.linear(w, weight / math.sqrt(weight.shape[1]), self._p[f"{name}.affine.bias"])

    def _conv(self, name: str, x: Tensor, w: Tensor, up: bool) -> Tensor:
        weight: Tensor = self._p[f"{name}.weight"]  # [O, I, 3, 3]
        style = self._style(name, w)  # [N, I]
        energy = weight.square().sum((2, 3))  # [O, I]
        demod = (style.square() @ energy.t() + 1e-8).rsqrt() * _SQRT2  # [N, O]
        x = x * style[:, :, None, None].to(x.dtype)
        weight = weight.to(x.dtype)
        if up:
            # StyleGAN2 correlates in the transposed convolution too; hence no flip here.
            y = _Blur.apply(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            y = F.conv2d(x, weight, padding=1)
        bias = self._p[f"{name}.bias"] * _SQRT2
        y = torch.addcmul(
            bias[None, :, None, None].to(y.dtype), y, demod[:, :, None, None].to(y.dtype)
        )
        return F.leaky_relu(y, 0.2)

    def _to_rgb(self, name: str, x: Tensor, w: Tensor) -> Tensor:
        weight = self._p[f"{name}.weight"]  # [3, I, 1, 1]
        style = self._style(name, w) / math.sqrt(weight.shape[1])
        y = F.conv2d(x * style[:, :, None, None].to(x.dtype), weight.to(x.dtype))
        return y.float() + self._p[f"{name}.bias"][None, :, None, None]

    def synthesis(self, w: Tensor, resolution: int | None = None) -> Tensor:
        """Images from one w per item.

        Args:
            w: [N, w_dim] float32, used for every layer.
            resolution: stop at this resolution (a skip generator has an image at each), None =
                full.

        Returns:
            [N, 3, resolution, resolution] float32, about [-1, 1].
        """
        last = resolution or self.config.img_resolution
        const = self._p["synthesis.b4.const"]
        x = const[None].to(self.dtype).expand(len(w), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        for r in self.resolutions:
            if r > last:
                break
            block = f"synthesis.b{r}"
            if r > 4:
                x = self._conv(f"{block}.conv0", x, w, up=True)
            x = self._conv(f"{block}.conv1", x, w, up=False)
            rgb = self._to_rgb(f"{block}.torgb", x, w)
            image = rgb if image is None else _upsample_image(image) + rgb
        assert image is not None
        return image

    def __call__(self, z: Tensor, resolution: int | None = None) -> Tensor:
        """Z [N, z_dim] -> images [N, 3, R, R]; see `synthesis`."""
        return self.synthesis(self.mapping(z), resolution)
