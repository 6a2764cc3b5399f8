"""The compiled op library: loaded once, never compiled here, and asked what it can do.

`load()` is called when `pyfacelat.ops` is imported. Where the library is absent or does not load,
the reason is kept for `backend_report()` and every op runs its reference. This is the only file
that reads PYFACELAT_BACKEND=auto|reference|cpp|cuda|triton. A backend that is asked for by name and
that an op lacks on a device is a `DeviceError`, never a silent change of mind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch

from pyfacelat.errors import DeviceError

__all__ = ["backend_report", "build_info", "call", "load", "select", "use_backend", "which"]

BACKENDS = ("auto", "reference", "cpp", "cuda", "triton")
LIBRARY = Path(__file__).with_name("_ops.abi3.so")
DEVICES = ("cpu", "cuda")
_NAMESPACE = "pyfacelat::"
_COMPILED = {"cpu": "cpp", "cuda": "cuda"}
# Parts of an op that no user calls; they follow the op that owns them.
_INNER = ("_grad", "_backward", "_pack")

Result = TypeVar("Result")

_attempted = False
_failure = "not loaded yet"
_triton_ops: set[str] = set()
_triton_missing: set[str] = set()


class BackendRow(TypedDict):
    """One line of `backend_report()`."""

    op: str
    device: str
    used: str
    available: list[str]
    why_not_faster: str


def _read_environment() -> str:
    name = os.environ.get("PYFACELAT_BACKEND", "auto").strip().lower() or "auto"
    if name not in BACKENDS:
        raise DeviceError(f"PYFACELAT_BACKEND: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_requested = _read_environment()


def load() -> str:
    """Load the compiled ops once; return "" or the reason why there are none.

    With PYFACELAT_BACKEND=reference the library is left alone: nothing but the reference can run.
    """
    global _attempted, _failure
    if _attempted:
        return _failure
    _attempted = True
    if _requested == "reference":
        _failure = "PYFACELAT_BACKEND=reference leaves the compiled library unloaded"
    elif not LIBRARY.is_file():
        _failure = f"{LIBRARY.name} is not there: the package was not built (pip install .)"
    else:
        try:
            torch.ops.load_library(str(LIBRARY))
            _failure = ""
        except OSError as error:
            _failure = f"{LIBRARY.name} does not load beside torch {torch.__version__}: {error}"
    return _failure


def build_info() -> dict[str, str]:
    """What the op library was built from, with and for; {} where there is no library.

    Keys: version, git, cuda_archs, cuda_toolkit, no_cuda_reason, compiler, flags, torch_headers.
    """
    if load():
        return {}
    library = ctypes.CDLL(str(LIBRARY))
    library.pyfacelat_build_info.restype = ctypes.c_char_p
    text: bytes = library.pyfacelat_build_info()
    return dict(line.split("\t", 1) for line in text.decode().split("\n"))


def register_triton(op: str, installed: bool) -> None:
    """Note that the CUDA implementation of `op` is a Triton kernel, and whether triton is there."""
    (_triton_ops if installed else _triton_missing).add(op)


def _has_kernel(op: str, key: str) -> bool:
    # The only use of a private torch function in the package: there is no public way to ask.
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(_NAMESPACE + op, key))


def _ops() -> list[str]:
    names = {
        name.removeprefix(_NAMESPACE).split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith(_NAMESPACE)
    }
    return sorted(name for name in names if not name.endswith(_INNER))


def available(op: str, device: str) -> list[str]:
    """Implementations that `op` has on a device type ("cpu", "cuda"), the fastest first."""
    found = []
    if device in _COMPILED and _has_kernel(op, device.upper()):
        found.append("triton" if device == "cuda" and op in _triton_ops else _COMPILED[device])
    return [*found, "reference"]


def select(op: str, device: str) -> str:
    """Name of the implementation that runs `op` on a device type.

    Raises:
        DeviceError: a backend was asked for by name, and the op has none of it on that device.

    """
    found = available(op, device)
    if _requested == "auto":
        return found[0]
    if _requested == "cuda" and "triton" in found:
        return "triton"  # an op has one kernel for GPUs, in either language
    if _requested not in found:
        where = f" ({_failure})" if _failure else ""
        raise DeviceError(
            f"op {op!r} has no {_requested!r} backend on {device}; it has {', '.join(found)}{where}"
        )
    return _requested


which = select


def call(
    op: str,
    reference: Callable[..., Result],
    x: torch.Tensor | Sequence[torch.Tensor],
    *args: Any,
) -> Result:
    """Run the registered op, or its reference where the reference was asked for.

    `reference` is differentiable plain torch with the same arguments; it is called directly, so
    that a loaded kernel cannot stand in for it. The device is that of `x`, or of its first tensor.

    Raises:
        DeviceError: a backend was asked for by name, and the op has none of it on x's device.

    """
    tensor = x if isinstance(x, torch.Tensor) else x[0]
    if _requested != "auto" and select(op, tensor.device.type) == "reference":
        return reference(x, *args)
    result: Result = getattr(torch.ops.pyfacelat, op)(x, *args)
    return result


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Ask for one backend inside a `with` block, as PYFACELAT_BACKEND does for a process."""
    global _requested
    if name not in BACKENDS:
        raise DeviceError(f"backend: expected one of {', '.join(BACKENDS)}, got {name!r}")
    before, _requested = _requested, name
    try:
        yield
    finally:
        _requested = before


def _why_not_faster(op: str, device: str, used: str, found: list[str], info: dict[str, str]) -> str:
    if used != "reference":
        return ""
    if _requested == "reference":
        return "the reference was asked for"
    if _failure:
        return _failure
    if device == "cuda" and op in _triton_missing:
        return "its CUDA kernel is written in Triton, which is not installed (pip install triton)"
    if device == "cuda" and info.get("no_cuda_reason"):
        return f"built without CUDA kernels: {info['no_cuda_reason']}"
    return f"no {_COMPILED[device]} kernel is written for this op" if len(found) == 1 else ""


def _device_note(device: str, info: dict[str, str]) -> str:
    """Why nothing runs on this device type at all; "" where it does."""
    if device == "cpu":
        return ""
    if not torch.backends.cuda.is_built():
        return f"no CUDA device can be used: torch {torch.__version__} is a CPU build"
    if not torch.cuda.is_available():
        return "no CUDA device is visible"
    major, minor = torch.cuda.get_device_capability()
    archs = [int(arch) for arch in info.get("cuda_archs", "").split() if arch.isdigit()]
    have = 10 * major + minor
    # Machine code runs on its own major version from its minor version on; PTX of the newest
    # architecture is compiled by the driver for anything later.
    if archs and not any(arch // 10 == major and arch <= have for arch in archs):
        if have < max(archs):
            return (
                f"this GPU is sm_{have}, the kernels were built for {info['cuda_archs']}: "
                f"rebuild with PYFACELAT_CUDA_ARCHS={have}"
            )
    return ""


def backend_report() -> list[BackendRow]:
    """Which implementation each op uses on each device type, and why not a faster one.

    Ops are known once `pyfacelat.ops` is imported, which is where users find this function.

    Returns:
        One dict an op and device, keys op, device, used ("reference", "cpp", "cuda", "triton", or
        "none" where the requested backend does not exist), available, why_not_faster ("" where the
        fastest known one is used).

    """
    info = build_info()
    rows: list[BackendRow] = []
    for op in _ops():
        for device in DEVICES:
            found = available(op, device)
            try:
                used = select(op, device)
                reason = _why_not_faster(op, device, used, found, info)
            except DeviceError as error:
                used, reason = "none", str(error)
            note = _device_note(device, info)
            why = "; ".join(part for part in (note, reason) if part)
            rows.append(
                BackendRow(op=op, device=device, used=used, available=found, why_not_faster=why)
            )
    return rows
