"""Optional packages: imported when they are needed, missed in one sentence."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from pyfacelat.errors import MissingPackageError

__all__ = ["require"]

_EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tensorrt": "tensorrt",
}
_REMARKS = {
    "onnxruntime": " (pyfacelat[onnx-gpu] for a CUDA device; the two cannot be installed together)",
    "tensorrt": " (TensorRT 10, for Linux with an NVIDIA GPU)",
}


def require(package: str, purpose: str) -> Any:
    """The imported package.

    Args:
        package: "onnx", "onnxruntime" or "tensorrt".
        purpose: what needs it, the beginning of the error's sentence.

    Raises:
        MissingPackageError: it is not installed, or its libraries cannot be loaded; the message
            says which it is and how to get it.
    """
    remedy = f"pip install 'pyfacelat[{_EXTRAS[package]}]'{_REMARKS.get(package, '')}"
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which is not installed: {remedy}"
        )
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which is installed but cannot be loaded "
            f"({error}): {remedy}"
        ) from error
