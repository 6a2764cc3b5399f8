"""How the presets' settings of motion were chosen: rank and identity's say, against the ideal.

Looks and targets of the first pairs are inverted once, as `balanced` does; then the motion is taken
over with every pair of settings, which costs next to nothing. `python -m
bench.procface.search_motion` prints a table: PSNR to the ideal, look distance to it over A's own,
landmark error to it and to B, medians over the pairs, landmarks read by the judge.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.procface import metrics
from bench.procface.methods import inversion, pictures
from bench.procface.networks import Networks, Sources
from bench.procface.pairs import fixed_pairs
from bench.procface.tasks import render
from pyfacelat import procface
from pyfacelat.images import to_uint8
from pyfacelat.projection import make_config
from pyfacelat.projection.motion import MotionModel
from pyfacelat.training.generator_task import psnr
from pyfacelat.weights import open_known

RANKS = (8, 12, 16, 20, 24, 28, 36)
KEEPS = (0.0, 0.3, 1.0, 3.0)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Print the table; returns its rows."""
    parser = argparse.ArgumentParser(prog="bench.procface.search_motion", description=__doc__)
    parser.add_argument("--pairs", type=int, default=12, help="the first so many; default 12")
    parser.add_argument("--steps", type=int, default=240, help="of both inversions; default 240")
    parser.add_argument("--ranks", type=_numbers, default=RANKS, help="directions, e.g. 8,16,24")
    parser.add_argument("--keeps", type=_numbers, default=KEEPS, help="identity's say, e.g. 0,1")
    options = parser.parse_args(arguments)
    nets = Networks(Sources())
    pairs = fixed_pairs(options.pairs)
    a, b = np.stack([p.a for p in pairs]), np.stack([p.b for p in pairs])
    (look, _), (target, b_points) = render(a, nets.size), render(b, nets.size)
    ideal, points = render(np.asarray(procface.compose(a, b)), nets.size)

    inverts = inversion(make_config("balanced", steps=options.steps))
    projector = nets.projector(inverts, seed=303)
    space = projector.space
    ends = [space.from_ws(projector.project(x).ws) for x in (look, target)]
    own = nets.look_distance(look, ideal)
    model = MotionModel.load(open_known("sample-motion"))
    rows = []
    print("rank  keep  PSNR, dB  look / A's  NME, %  NME B, %")
    for keep, rank in itertools.product(options.keeps, options.ranks):
        directions = model.directions(int(rank), keep=keep).float()
        images = _moved(
            nets, space.to_ws(ends[0] + (ends[1] - ends[0]) @ directions @ directions.T)
        )
        found = nets.points(nets.judge, images).numpy()
        row = {
            "rank": rank,
            "keep": keep,
            "psnr": float(psnr(images, ideal).median()),
            "look": float((nets.look_distance(images, ideal) / own).median()),
            "nme": float(np.median(metrics.nme(found, points))),
            "nme_b": float(np.median(metrics.nme(found, b_points))),
        }
        rows.append(row)
        print(
            f"{rank:4.0f} {keep:5.1f} {row['psnr']:9.1f} {row['look']:11.2f} "
            f"{100 * row['nme']:7.1f} {100 * row['nme_b']:9.1f}",
            flush=True,
        )
    return rows


@torch.no_grad()
def _moved(nets: Networks, ws: Tensor) -> Tensor:
    images = torch.cat([nets.generator.synthesis(part) for part in ws.split(8)])
    return pictures(to_uint8(images).cpu().numpy())


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    main()
