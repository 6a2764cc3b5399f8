"""Every kernel compiles for sm_80 and sm_90a, within the registers and shared memory of a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simt import build, resources

TABLE = json.loads(resources.TABLE.read_text())


@pytest.mark.parametrize("architecture", resources.ARCHITECTURES)
@pytest.mark.parametrize("source", resources.sources(), ids=lambda file: file.stem)
def test_kernels_keep_to_the_table(source: Path, architecture: str, tmp_path: Path) -> None:
    rows = resources.compile_kernels(source, architecture, tmp_path)
    assert rows
    # Another release of the compiler may schedule otherwise; the table is of one.
    slack = 0 if resources.release() == TABLE["toolkit"] else 8
    for name, row in rows.items():
        assert name in TABLE["kernels"], f"{name}: not in resources.json; see resources.py"
        registers, shared = (
            int(s.split()[0]) for s in TABLE["kernels"][name][architecture].split(",")
        )
        assert row["spills"] == row["stack"] == 0, f"{name} {architecture}: {row}"
        assert row["registers"] <= registers + slack, f"{name} {architecture}: {row}"
        assert row["shared"] == shared, f"{name} {architecture}: {row}"


def test_what_the_emulation_imitates_compiles_as_well(tmp_path: Path) -> None:
    """The inline assembly of simt.h, through the kernels of test_planted.py."""
    assert resources.compile_kernels(build.HERE / "planted.cu", "sm_80", tmp_path)


def test_the_table_has_no_kernel_that_is_gone() -> None:
    text = "".join(file.read_text() for file in resources.sources())
    gone = {name for name in TABLE["kernels"] if name.partition("<")[0] not in text}
    assert not gone
