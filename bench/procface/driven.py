"""One face driven by another's clip, in both modes, against the exact answer.

    python -m bench.procface.driven --out DIR [--picture docs/driven.png]

B moves, A is driven by pictures of B, and the answer is A in the same motion. Jitter is that of
what the judge reads, over what it reads in pictures of the exact answer: it trembles on those too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyfacelat
from bench.procface import metrics
from bench.procface.methods import pictures
from bench.procface.networks import Networks, Sources
from bench.procface.pairs import fixed_pairs
from bench.procface.score import score_clip
from bench.procface.tasks import clips, render
from pyfacelat import procface
from pyfacelat.animation import AnimationResult
from pyfacelat.images import save_png, to_pil, to_uint8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.procface.driven", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--pair", type=int, default=1, help="which of the fixed pairs")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--modes", default="joint,sequential")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--track", action="store_true", help="driven by B's points, not pictures")
    parser.add_argument("--picture", type=Path, help="where the strip of the first mode goes")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    rows = measure(given)
    for name, row in rows.items():
        print(name, json.dumps(row))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "driven.json").write_text(json.dumps(rows, indent=1))
    return 0


def measure(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Numbers by mode, and those of the exact answer as "ideal"."""
    nets = Networks(Sources(), given.device)
    pair = fixed_pairs(given.pair + 1)[given.pair]
    clip = clips([pair], 1, given.frames)[0]
    look, _ = render(pair.a[None], nets.size)
    ideal, truth = render(clip.ideal, nets.size)
    seen, points = render(procface.compose(pair.b, clip.ideal), nets.size)
    driving: Any = points * nets.size if given.track else to_uint8(seen).numpy()
    exact = _acceleration(nets, ideal)
    rows = {"ideal": score_clip(clip, ideal, 0.0, nets) | {"jitter_read": 1.0}}
    for mode in given.modes.split(","):
        result = pyfacelat.animate(
            to_pil(look[0]), driving, mode=mode, preset=given.preset, align=False,
            device=given.device,
        )  # fmt: skip
        frames = pictures(result.images)
        row = score_clip(clip, frames, result.timings["total"], nets)
        row["jitter_read"] = _acceleration(nets, frames) / exact
        rows[mode] = row | {"steps": _sequential_steps(result), **result.metrics}
        result.save(given.out / mode)
        if given.picture and mode == given.modes.split(",")[0]:
            save_png(given.picture, result.strip())
    return rows


def _acceleration(nets: Networks, frames: torch.Tensor) -> float:
    found = nets.points(nets.judge, frames).numpy()
    return metrics.acceleration(np.asarray(found)[:, list(metrics.INNER)])


def _sequential_steps(result: AnimationResult) -> int:
    """Optimiser steps one after the other."""
    steps = {phase: len(next(iter(curves.values()))) for phase, curves in result.losses.items()}
    if result.config.mode == "sequential":
        steps["frames"] *= len(result) - 1
    return sum(steps.values())


if __name__ == "__main__":
    sys.exit(main())
