"""A pytest plugin (`-p tests.simt.plugin`) under which CPU tensors go through the CUDA kernels.

SIMT_LIBRARY names a library of `tests.simt.build` that registers the emulated kernels; it takes the
place of the package's own before any op is called. The package never does this by itself.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import torch

from pyfacelat import _extension

_extension.LIBRARY = Path(os.environ["SIMT_LIBRARY"])


def configure(order: int, lazy: bool) -> None:
    """Choose the order of the threads and the time of asynchronous copies (order.h, copies.h)."""
    ctypes.CDLL(os.environ["SIMT_LIBRARY"]).simt_configure(order, int(lazy))


def pytest_sessionfinish() -> None:
    """Passing without a launch would prove nothing."""
    assert ctypes.CDLL(os.environ["SIMT_LIBRARY"]).simt_launches() > 0


def _skip(*_: Any, **__: Any) -> None:
    pass


# Schemas, fakes and autograd formulas are the same for every kernel, and checked without us; the
# gradients of every case are still compared with those of the float64 reference.
torch.library.opcheck = torch.autograd.gradcheck = torch.autograd.gradgradcheck = _skip
