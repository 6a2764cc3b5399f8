"""Run by three_environments.sh with an installed pyfacelat, from a folder outside the sources.

Arguments: expected torch version, expected CUDA architectures ("" for a build without CUDA, "any"
to accept either), and optionally the `_ops` file of another installation.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pyfacelat._native
import pyfacelat.kernels
import torch

import pyfacelat
from pyfacelat import _extension


def check_op() -> None:
    """The compiled op runs, and equals its reference."""
    from pyfacelat import ops

    x, b = torch.randn(2, 5, 7, 9), torch.randn(5)
    found = ops.bias_act(x, b, act="lrelu", clamp=1.0)
    with _extension.use_backend("reference"):
        expected = ops.bias_act(x, b, act="lrelu", clamp=1.0)
    torch.testing.assert_close(found, expected)


def main() -> None:
    """Check the installation; any failure is an exception."""
    torch_version, archs, *other = sys.argv[1:]
    assert torch.__version__ == torch_version, f"torch became {torch.__version__}"
    assert "site-packages" in pyfacelat.__file__, pyfacelat.__file__
    assert importlib.metadata.version("pyfacelat") == pyfacelat.__version__
    assert Path(pyfacelat.__file__).with_name("py.typed").is_file()
    if other:
        # The same file in another torch: what the stable ABI promises. Nothing is loaded yet, that
        # happens when pyfacelat.ops is imported.
        _extension.LIBRARY = Path(other[0])
    assert _extension.load() == "", _extension.load()
    info = _extension.build_info()
    assert archs == "any" or info["cuda_archs"] == archs, info
    check_op()
    assert {row["used"] for row in _extension.backend_report() if row["device"] == "cpu"} == {"cpp"}
    print(f"ok: {_extension.LIBRARY.name} for '{info['cuda_archs']}' beside torch {torch_version}")


main()
