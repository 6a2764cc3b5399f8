"""From a method's pictures to the numbers of one case. The judge measures all landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from bench.procface import metrics
from bench.procface.methods import Answer
from bench.procface.networks import Networks
from bench.procface.pairs import Points, exact_points
from bench.procface.tasks import Batch, Clip, render
from pyfacelat import procface
from pyfacelat.faces.groups import GROUPS
from pyfacelat.training.generator_task import psnr

Values = dict[str, Any]

_MOVING = ("left_eye", "right_eye", "outer_lip")
CAP = 60.0
"""dB above which two pictures are the same for our purposes; an identical one would be infinite."""


def score(batch: Batch, answer: Answer, nets: Networks) -> list[Values]:
    """The numbers of each case of a batch of T1, T2, T3 or T4."""
    task = batch.cases[0].task
    found = _points(nets, answer.images)
    if task == "T4":
        rows = _dose(batch, nets, found)
    else:
        rows = _against_ideal(batch, answer.images, nets, found)
        if task == "T2":
            _add(rows, _transfer(batch, answer, nets, found))
        elif task == "T3":
            _add(rows, _one_feature(batch, nets, found))
    for row in rows:
        if answer.seconds:
            row["seconds"], row["cpu_seconds"] = answer.seconds, answer.cpu_seconds
    return rows


def _against_ideal(batch: Batch, images: Tensor, nets: Networks, found: Points) -> list[Values]:
    """Distance to the exact answer: the headline."""
    whole = psnr(images, batch.ideal).clamp(max=CAP)
    look = nets.look_distance(images, batch.ideal)
    error = metrics.nme(found, batch.ideal_points)
    groups = metrics.nme_by_group(found, batch.ideal_points)
    return [
        {
            "psnr": float(whole[i]),
            "look": float(look[i]),
            "nme": float(error[i]),
            "nme_groups": {name: float(values[i]) for name, values in groups.items()},
        }
        for i in range(len(images))
    ]


def _transfer(batch: Batch, answer: Answer, nets: Networks, found: Points) -> list[Values]:
    """What else T2 asks: nearness to B, motion, what is kept of A, gaming, time to reach."""
    to_b = metrics.nme(found, batch.points)
    groups = metrics.nme_by_group(found, batch.points)
    start_b = metrics.nme(batch.look_points, batch.points)
    start = metrics.nme(batch.look_points, batch.ideal_points)
    seen = metrics.nme(_points(nets, answer.images, judge=False), batch.points)
    ideal_error = metrics.nme(found, batch.ideal_points)
    kept = nets.look_distance(
        answer.images, batch.look, _outside(batch.look_points, found, nets.size)
    )
    start_look = nets.look_distance(batch.look, batch.ideal)
    traits = _traits(batch, answer.images, nets)
    rows: list[Values] = []
    for i, case in enumerate(batch.cases):
        rows.append(
            {
                "nme_b": float(to_b[i]),
                "nme_b_groups": {name: float(values[i]) for name, values in groups.items()},
                "start_nme_b": float(start_b[i]),
                "start_nme": float(start[i]),
                "start_look": float(start_look[i]),
                "displacement": case.pair.displacement,
                "carried": float(metrics.carried(to_b[i], start_b[i])),
                "carried_ideal": float(metrics.carried(ideal_error[i], start[i])),
                "seen": float(seen[i]),
                "gaming": float(to_b[i] - seen[i]),
                "kept": float(kept[i]),
            }
        )
        if traits is not None:
            rows[i]["traits"] = float(traits[i])
        if answer.curve:
            rows[i]["curve"] = []
    for seconds, images in answer.curve:
        for row, point in zip(rows, _against_ideal_short(batch, images, nets), strict=True):
            row["curve"].append({"seconds": seconds, **point})
    return rows


def _against_ideal_short(batch: Batch, images: Tensor, nets: Networks) -> list[dict[str, float]]:
    look = nets.look_distance(images, batch.ideal)
    error = metrics.nme(_points(nets, images), batch.ideal_points)
    return [{"nme": float(e), "look": float(d)} for e, d in zip(error, look, strict=True)]


def _one_feature(batch: Batch, nets: Networks, found: Points) -> list[Values]:
    """How the selected feature and the others moved. Start and end are both the judge's view."""
    start = _points(nets, batch.look)
    rows = []
    for i, case in enumerate(batch.cases):
        others = [k for k in metrics.INNER if k not in case.selected]
        # What the exact answer's own framing moves is no cross-talk.
        expected = start[i] + (batch.ideal_points[i] - batch.look_points[i])
        moved = float(metrics.motion(start[i], found[i], case.selected))
        stray = float(metrics.motion(expected, found[i], others))
        asked = float(metrics.motion(batch.look_points[i], batch.ideal_points[i], case.selected))
        rows.append(
            {
                "feature": case.variant,
                "asked_motion": asked,
                "moved": moved,
                "stray": stray,
                # What hardly moved has no cross-talk: it would be noise over noise.
                "cross_talk": stray / moved if moved > 0.1 * asked else None,
                "carried": float(
                    metrics.achieved_dose(start[i], found[i], expected, case.selected)
                ),
            }
        )
    return rows


def _dose(batch: Batch, nets: Networks, found: Points) -> list[Values]:
    """How much of the motion from A to the ideal was made, as the judge sees both ends."""
    start = _points(nets, batch.look)
    rows = []
    for i, case in enumerate(batch.cases):
        whole = procface.compose(case.pair.a, case.pair.b)
        step = exact_points(whole)[0] - batch.look_points[i]
        rows.append(
            {
                "asked": case.dose,
                "achieved": float(metrics.achieved_dose(start[i], found[i], start[i] + step)),
                "nme_asked": float(metrics.nme(found[i], case.points)),
            }
        )
    return rows


def score_clip(clip: Clip, frames: Tensor, seconds: float, nets: Networks) -> Values:
    """The numbers of one clip of T5: frames [T,3,R,R] against A with the same motion."""
    ideal, truth = render(clip.ideal, nets.size)
    found = _points(nets, frames)
    values: Values = {
        "psnr": float(psnr(frames, ideal).clamp(max=CAP).mean()),
        "look": float(nets.look_distance(frames, ideal).mean()),
        "nme": float(metrics.nme(found, truth).mean()),
        "jitter": metrics.jitter(found[:, list(metrics.INNER)], truth[:, list(metrics.INNER)]),
        "lag": metrics.lag(found[:, list(metrics.INNER)], truth[:, list(metrics.INNER)]),
    }
    if seconds:
        values["seconds"] = seconds
    return values


def _points(nets: Networks, images: Tensor, *, judge: bool = True) -> Points:
    found = nets.points(nets.judge if judge else nets.landmarker, images)
    return np.asarray(found.numpy().astype(np.float64))


def _traits(batch: Batch, images: Tensor, nets: Networks) -> np.ndarray[Any, Any] | None:
    """Distance to A in identity and appearance, over B's: what the encoder says. None without one.

    0 is A, 1 as far from A as B is.
    """
    if not nets.sees_traits or batch.target is None:
        return None
    columns = [procface.index(n) for tag in ("identity", "appearance") for n in procface.names(tag)]
    a, b, out = (nets.traits(x)[:, columns] for x in (batch.look, batch.target, images))
    ratio = (out - a).norm(dim=1) / (b - a).norm(dim=1).clamp_min(1e-9)
    return np.asarray(ratio.numpy())


def _outside(a: Points, out: Points, size: int) -> Tensor:
    """1 outside the hulls of eyes and mouth of both faces, 0 inside: [N,1,size,size]."""
    masks = []
    for faces in zip(a, out, strict=True):
        canvas = Image.new("L", (size, size), 255)
        pen = ImageDraw.Draw(canvas)
        for points in faces:
            for group in _MOVING:
                pen.polygon([tuple(p) for p in _grown(points[list(GROUPS[group])]) * size], fill=0)
        masks.append(torch.from_numpy(np.asarray(canvas, np.float32) / 255))
    return torch.stack(masks)[:, None]


def _grown(points: Points) -> Points:
    """A closed curve of landmarks, a third larger about its centre: with lids and lip edges."""
    centre = points.mean(0)
    return np.asarray(centre + (points - centre) * 4 / 3)


def _add(rows: Sequence[Values], more: Sequence[Values]) -> None:
    for row, values in zip(rows, more, strict=True):
        row.update(values)
