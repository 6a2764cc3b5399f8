"""Every Triton kernel compiles for sm_80, sm_90 and sm_100, within the numbers of a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="a torch without CUDA comes without triton")

from tests.kernels import resources  # noqa: E402

TABLE = json.loads(resources.TABLE.read_text())
MOST_SHARED = 48 * 1024  # what every GPU gives a program without asking


@pytest.mark.parametrize("op", resources.CALLS)
def test_kernels_keep_to_the_table(
    op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    # Another release of the compiler may schedule otherwise; the table is of one.
    slack = 0 if triton.__version__ == TABLE["triton"] else 16
    found = resources.launches(op)
    assert found
    for launch in found:
        for architecture in resources.ARCHITECTURES:
            row = launch.compile(architecture)
            assert launch.name in TABLE["kernels"], f"{launch.name}: see resources.py"
            cell = TABLE["kernels"][launch.name][f"sm_{architecture}"]
            registers, shared = (int(s.split()[0]) for s in cell.split(","))
            what = f"{launch.name} sm_{architecture}: {row}, table: {cell}"
            assert row["spills"] == 0, what
            assert row["registers"] <= registers + slack, what
            assert row["shared"] <= (shared if not slack else MOST_SHARED), what
            assert row["shared"] <= MOST_SHARED, what


def test_the_table_has_no_kernel_that_is_gone() -> None:
    names = {launch.name for op in resources.CALLS for launch in resources.launches(op)}
    assert names == set(TABLE["kernels"])
