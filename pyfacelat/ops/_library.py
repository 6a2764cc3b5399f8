"""The `pyfacelat::` operator namespace and the checks that the wrappers share."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyfacelat import _extension

__all__ = [
    "FLOATS",
    "accumulated",
    "check_float",
    "check_same",
    "define",
    "define_triton",
    "kernels",
    "memory_format",
    "once_differentiable",
    "quads",
]

# Schemas and references live here; a compiled library adds faster kernels per device.
_LIBRARY = torch.library.Library("pyfacelat", "FRAGMENT")


def define(
    schema: str,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    save: Callable[..., None] | None = None,
) -> None:
    """Declare an op.

    Args:
        schema: "name(arguments) -> results", in torch's schema language.
        reference: plain torch, used on every device that has no compiled kernel.
        fake: makes outputs of the right shape, dtype and layout, without values.
        backward: gradients of the inputs from those of the outputs; None: not differentiable.
        save: keeps for `backward` what it needs of inputs and output.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pyfacelat::{name}", fake, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(
            f"pyfacelat::{name}", backward, setup_context=save, lib=_LIBRARY
        )


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A `backward` whose result is not differentiable: says so when it would have to be."""

    def checked(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled() and any(
            isinstance(g, Tensor) and g.requires_grad for g in gradients
        ):
            raise RuntimeError("this op of pyfacelat has no second derivative")
        with torch.no_grad():
            return backward(ctx, *gradients)

    return checked


def define_triton(name: str, launch: Callable[..., Any]) -> None:
    """Register a Triton implementation for CUDA tensors, where triton is installed.

    Args:
        name: of an op that `define` has declared.
        launch: the op's own arguments; imports the kernels when it is first called, so that
            `import pyfacelat` never imports triton.
    """
    installed = importlib.util.find_spec("triton") is not None
    if installed:
        _LIBRARY.impl(name, launch, "CUDA")
    _extension.register_triton(name, installed)


def kernels(name: str) -> ModuleType:
    """The module `pyfacelat.kernels.NAME`.

    Installing puts the folder into the package; in a source tree it lies beside the package.
    """
    root = Path(__file__).resolve().parents[2]
    places = sys.modules["pyfacelat"].__path__
    if (root / "kernels" / "__init__.py").is_file() and str(root) not in places:
        places.append(str(root))
    return importlib.import_module(f"pyfacelat.kernels.{name}")


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_float(name: str, x: Tensor, ndim: tuple[int, ...] = (4,)) -> None:
    """Raise ValueError unless `x` is a floating-point tensor with one of the given ranks."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise ValueError(f"{name}: expected a float16/32/64 or bfloat16 tensor, got {x.dtype}")
    if x.ndim not in ndim:
        want = " or ".join(f"{n}-D" for n in ndim)
        raise ValueError(f"{name}: expected a {want} tensor, got shape {tuple(x.shape)}")


def accumulated(dtype: torch.dtype) -> torch.dtype:
    """What sums of a dtype are kept in: float32 for the 16-bit types, else the dtype itself."""
    return torch.float32 if dtype.itemsize == 2 else dtype


def check_same(name: str, t: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `t` has `shape` and the dtype and device of `x`."""
    if tuple(t.shape) != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(t.shape)}")
    if t.dtype != x.dtype:
        raise ValueError(f"{name}: expected the dtype of x ({x.dtype}), got {t.dtype}")
    if t.device != x.device:
        raise ValueError(f"{name}: expected the device of x ({x.device}), got {t.device}")


def quads(name: str, value: int | tuple[int, ...] | list[int]) -> list[int]:
    """Expand one int to (left, right, top, bottom)."""
    if isinstance(value, int):
        return [value] * 4
    out = [int(v) for v in value]
    if len(out) != 4:
        raise ValueError(f"{name}: expected an int or (left, right, top, bottom), got {value!r}")
    return out


def memory_format(x: Tensor) -> torch.memory_format:
    """Layout of every op's output: channels_last exactly when `x` is that and nothing else."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
