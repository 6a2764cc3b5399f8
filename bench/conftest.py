"""Side-by-side timing: this package's op against rivals on the same inputs, results asserted.

A machine that is shared gives noisy wall times; every figure here is the best of several rounds,
taken in turn (ours, rival, ours, ...) so that a slow spell hits all of them, and process CPU time
is kept beside wall time. What counts is the ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

ROUNDS = 5


def _time(run: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., dict[str, float]]:
    """compare(ours, rivals, check=..., gigabytes=..., gigaflops=...) -> ratios by rival."""

    def run(
        ours: Callable[[], Any],
        rivals: dict[str, Callable[[], Any]],
        *,
        check: Callable[[Any, Any], None],
        gigabytes: float = 0.0,
        gigaflops: float = 0.0,
    ) -> dict[str, float]:
        for rival in rivals.values():  # warms everything up, too
            check(ours(), rival())
        best: dict[str, tuple[float, float]] = {}
        for _ in range(ROUNDS):
            for name, call in {"": ours, **rivals}.items():
                spent = _time(call)
                known = best.get(name, spent)
                best[name] = (min(known[0], spent[0]), min(known[1], spent[1]))
        wall, cpu = best.pop("")
        threads = torch.get_num_threads()
        parts = [f"\n{request.node.name}: {wall * 1e3:.2f} ms wall, {cpu * 1e3:.2f} cpu"]
        parts += [f"{gigabytes / wall:.1f} GB/s"] if gigabytes else []
        parts += [f"{gigaflops / wall:.0f} GFLOP/s"] if gigaflops else []
        ratios = {name: their_wall / wall for name, (their_wall, _) in best.items()}
        parts += [f"{ratios[name]:.2f}x {name} ({best[name][1] / cpu:.2f}x cpu)" for name in ratios]
        print(", ".join(parts), f"[{threads} threads]", end="")
        benchmark.extra_info.update(
            threads=threads, gigabytes=gigabytes, gigaflops=gigaflops, cpu=cpu, ratios=ratios
        )
        benchmark.pedantic(ours, rounds=3)
        return ratios

    return run


def assert_same(ours: Any, theirs: Any) -> None:
    """Two float32 formulations: relative L2 distance 1e-4 for the value, 5e-3 for gradients.

    The exact policy is tests/tolerances.py and runs in the tests; here both sides are float32, and
    a benchmark of a wrong result must fail. Among millions of pre-activations a few round to
    opposite sides of zero and change the slope of lrelu, which gradients show.
    """
    ours = ours if isinstance(ours, tuple) else (ours,)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        distance = torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)
        assert distance < (5e-3 if i else 1e-4), f"result {i} differs by {distance:.2g}"
