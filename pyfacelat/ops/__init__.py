"""Operators of the face generator and of the losses.

Each is a torch op (`torch.ops.pyfacelat.NAME`) with a plain torch reference for every device; the
compiled library, where there is one, adds faster implementations of the same schema.
"""

from __future__ import annotations

from pyfacelat import _extension
from pyfacelat._extension import backend_report
from pyfacelat.ops.bias_act import ACTIVATIONS, bias_act, default_gain
from pyfacelat.ops.conv2d_resample import conv2d_resample
from pyfacelat.ops.conv3x3 import Conv3x3Weight, conv3x3, pack_conv3x3
from pyfacelat.ops.heatmap_loss import Reduction, heatmap_loss
from pyfacelat.ops.lpips_diff import lpips_diff, lpips_unit
from pyfacelat.ops.modulated_conv2d import demodulation, modulated_conv2d, weight_energy
from pyfacelat.ops.noise_reg import (
    adam_update_,
    noise_reg,
    noise_reg_with_gradient,
    noise_update_,
    pack_maps,
    unpack_maps,
)
from pyfacelat.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "ACTIVATIONS",
    "Conv3x3Weight",
    "Reduction",
    "adam_update_",
    "backend_report",
    "bias_act",
    "conv2d_resample",
    "conv3x3",
    "default_gain",
    "demodulation",
    "downsample2d",
    "filter2d",
    "heatmap_loss",
    "lpips_diff",
    "lpips_unit",
    "modulated_conv2d",
    "noise_reg",
    "noise_reg_with_gradient",
    "noise_update_",
    "pack_conv3x3",
    "pack_maps",
    "setup_filter",
    "unpack_maps",
    "upfirdn2d",
    "upsample2d",
    "weight_energy",
]

_extension.load()
