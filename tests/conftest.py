"""Every test starts from the same seed, in deterministic mode, and GPU tests are counted.

Tests that work through many cases in one function say how many with `tally`; the sums are printed
at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    # Deterministic mode also fills new tensors with NaN, those made inside C++ ops included: an
    # output element that a kernel forgets to write shows up in every comparison.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device type in turn."""
    return torch.device(request.param)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Count cases under a name, for the summary: `tally("odd images", 1)`."""
    # A property of the report, because that is what travels from the workers of pytest-xdist.
    return lambda name, count: record_property("tally", [name, count])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the sums of what passing tests counted."""
    sums: dict[str, int] = {}
    for report in terminalreporter.stats.get("passed", []):
        for key, value in report.user_properties:
            if key == "tally":
                sums[value[0]] = sums.get(value[0], 0) + value[1]
    if sums:
        terminalreporter.section("cases")
        for name, count in sorted(sums.items()):
            terminalreporter.write_line(f"{count:6,} {name}")
