"""Keeping the allocator's blocks: they stay inside, go back outside, and can be switched off."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pyfacelat.projection.memory import keep_blocks

# In a process of its own: what other tests have left on the heap decides where a block goes.
SCRIPT = """
import json, os, resource
import torch
from pyfacelat.projection.memory import blocks_kept

BLOCK = 1 << 24  # floats: 64 MB, more than glibc keeps by itself

def faults():
    # Page faults of touching a large block eight times, once the heap has settled: small blocks
    # that end up in a freed large one make it grow a few times at first, as in a run's first steps.
    for _ in range(12):
        torch.ones(BLOCK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

found = [faults()]
os.environ["PYFACELAT_KEEP_BLOCKS"] = "0"
with blocks_kept():
    found.append(faults())
del os.environ["PYFACELAT_KEEP_BLOCKS"]
with blocks_kept():
    with blocks_kept():
        found.append(faults())
    found.append(resident())
found.append(resident())
print(json.dumps(found))
"""


@pytest.mark.skipif(not keep_blocks(False), reason="not glibc")
def test_blocks_stay_inside_and_go_back_outside() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    before, switched_off, inside, held, left = json.loads(run.stdout)
    assert inside < 0.4 * before
    assert switched_off > 0.5 * before
    assert held - left > 0.9 * 4 * (1 << 24)  # at least the one block is back with the system
