"""Every Triton kernel on CPU tensors, under Triton's interpreter, against float64.

The interpreter has to be chosen before triton is imported, so each file of cases runs in a process
of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("interpreted_*.py"))


@pytest.mark.parametrize("cases", CASES, ids=lambda file: file.stem)
def test_against_float64(cases: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    answer = subprocess.run(
        [*command, str(cases)],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0 and " passed" in answer.stdout, answer.stdout[-4000:]


def test_every_kernel_has_cases() -> None:
    kernels = {file.stem for file in (HERE.parents[1] / "kernels").glob("[!_]*.py")}
    text = "".join(file.read_text() for file in CASES)
    assert kernels and all(f'kernels("{name}")' in text for name in kernels), kernels
