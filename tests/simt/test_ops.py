"""The tests of the ops once more, with every CPU tensor through the emulated CUDA kernels.

Same tables, same policy (float64 truth for values and gradients): argument checks, memory layouts,
allocations and launches of csrc/*/*_cuda.cpp and the kernels of csrc/*/*_cuda.cu are those that a
GPU would run. Repeated under the race checker and under the address and undefined-behaviour
sanitizers; under_emulation.py compares the bits of all orders of the threads.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simt import build

KERNELS = sorted((build.ROOT / "csrc").glob("*/*_cuda.cu"))
GLUE = sorted((build.ROOT / "csrc").glob("*/*_cuda.cpp"))
GLUE.append(build.ROOT / "csrc/modulated_conv2d/resample.cpp")
TABLES = [
    "tests/ops/test_modulated_conv2d.py",
    "tests/ops/test_bias_act.py",
    "tests/ops/test_upfirdn2d.py",
    "-k",
    "test_against_reference",
]


def run_tests(variant: str, *selection: str) -> None:
    """Run tests in a process that has the emulated kernels for its ops."""
    library = build.build(KERNELS, variant, GLUE)
    environment = build.sanitizer_environment() if variant == "asan" else dict(os.environ)
    environment |= {"SIMT_LIBRARY": str(library), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.simt.plugin"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", *selection]
    answer = subprocess.run(
        command, env=environment, cwd=build.ROOT, capture_output=True, text=True
    )
    tail = build.with_lines(answer.stdout[-4000:], library) + answer.stderr[-4000:]
    assert answer.returncode == 0 and " passed" in answer.stdout, tail


@pytest.mark.parametrize("variant", build.VARIANTS)
def test_every_case_against_float64(variant: str) -> None:
    run_tests(variant, *TABLES)


def test_every_order_of_the_threads() -> None:
    run_tests("plain", "tests/simt/under_emulation.py")
