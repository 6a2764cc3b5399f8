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
    # Page faults of touching a large block eight times, beyond the first.
    torch.ones(BLOCK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults()]
with blocks_kept(), blocks_kept():
    found.append(faults())
found.append(faults())
os.environ["PYFACELAT_KEEP_BLOCKS"] = "0"
with blocks_kept():
    found.append(faults())
print(json.dumps(found))
"""


@pytest.mark.skipif(not keep_blocks(False), reason="not glibc")
def test_blocks_stay_inside_and_go_back_outside() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    before, inside, after, switched_off = json.loads(run.stdout)
    assert inside < 0.4 * before
    assert after > 0.5 * before
    assert switched_off > 0.5 * before
