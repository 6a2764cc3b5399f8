"""How the launchers of this package start their kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, warps: int = 4, **constants: Any
) -> None:
    """Start `kernel` on the device of its first argument, a tensor.

    Products and sums are rounded one by one (no fused multiply-add), so that no release of the
    compiler changes a result.
    """
    options = {"num_warps": warps, "enable_fp_fusion": False, **constants}
    if args[0].is_cuda:
        with torch.cuda.device_of(args[0]):
            kernel[grid](*args, **options)
    else:  # the interpreter
        kernel[grid](*args, **options)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return int(triton.next_power_of_2(n))
