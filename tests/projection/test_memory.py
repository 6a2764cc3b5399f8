"""Keeping the allocator's blocks: they stay inside, go back outside, and can be switched off."""

from __future__ import annotations

import resource

import pytest
import torch

from pyfacelat.projection.memory import blocks_kept, keep_blocks

BLOCK = 1 << 24  # floats: 64 MB, more than glibc keeps by itself


def faults() -> int:
    """Page faults of touching a large block eight times, beyond the first."""
    torch.ones(BLOCK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not keep_blocks(False), reason="not glibc")
def test_blocks_stay_inside_and_go_back_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = faults()
    with blocks_kept(), blocks_kept():
        inside = faults()
    assert inside < 0.4 * outside
    assert faults() > 0.5 * outside
    monkeypatch.setenv("PYFACELAT_KEEP_BLOCKS", "0")
    with blocks_kept():
        assert faults() > 0.5 * outside
