"""The run: every method on every task, batch by batch, each batch saved before the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bench.procface import methods as who
from bench.procface.drive import drive
from bench.procface.methods import GIVEN, Answer, Method, Projection
from bench.procface.networks import Networks
from bench.procface.pairs import Pair
from bench.procface.progress import Progress
from bench.procface.score import score, score_clip
from bench.procface.store import Key, Record, Store
from bench.procface.tasks import Batch, Case, Clip, batch_of, cases, clips, render
from pyfacelat.images import save_png, to_uint8

NO_SEED = -1
"""Seed of what has none: the given pictures."""

INVARIANCE_STEPS = 50

GIVEN_IN = {
    "T1": ("A itself",),
    "T2": GIVEN,
    "T3": ("A itself", "ideal"),
    "T4": ("ideal",),
    "T5": ("ideal",),
    "T6": (),
}
"""Which given pictures say something in which task."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        methods: who answers.
        tasks: names in tasks.TASKS.
        pairs: the fixed pairs; a task takes its share of them.
        seeds: of the projections, each a full run.
        batch: cases in one call of a method.
        clips, frames, frame_steps: of T5.
        sheet: pictures of the first so many pairs are kept for the contact sheet.
        threads: of the renderer; None for all cores.

    """

    methods: Sequence[Method]
    tasks: Sequence[str]
    pairs: Sequence[Pair]
    seeds: Sequence[int]
    batch: int = 8
    clips: int = 1
    frames: int = 64
    frame_steps: int = 40
    sheet: int = 9
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """One piece of work: cases that a method answers together.

    Attributes:
        method: who, or the name of a given picture.
        task, seed: which.
        keys: of the records that come of it.
        cases: T1 to T4, T6.
        clips: T5.
        work: optimiser steps times faces.

    """

    method: Method | str
    task: str
    seed: int
    keys: tuple[Key, ...]
    cases: tuple[Case, ...] = ()
    clips: tuple[Clip, ...] = ()
    work: int = 0

    @property
    def label(self) -> str:
        """Name of the method or picture."""
        return _label(self.method)


def run(plan: Plan, nets: Networks, store: Store) -> None:
    """Do what the store has not yet, and save it.

    Raises:
        FacelatError: whatever a projection raises; what was done before is saved.

    """
    jobs = list(_jobs(plan, store))
    work: dict[str, int] = {}
    for job in jobs:
        work[job.label] = work.get(job.label, 0) + job.work
    progress = Progress(work)
    for number, job in enumerate(jobs, 1):
        progress.start()
        store.add(_records(job, _do(job, plan, nets, store.folder)))
        if job.work:
            progress.done(job.label, job.work, f"{number}/{len(jobs)} {_describe(job)}")


def _jobs(plan: Plan, store: Store) -> Iterator[Job]:
    """All pieces of work that are not done, task by task."""
    for task in plan.tasks:
        everyone: list[tuple[Method | str, int]] = [(label, NO_SEED) for label in GIVEN_IN[task]]
        everyone += [(m, s) for s in plan.seeds for m in plan.methods if task in m.tasks]
        for method, seed in everyone:
            if task == "T5":
                whole = _clip_job(plan, method, seed, clips(plan.pairs, plan.clips, plan.frames))
                todo = [c for c, k in zip(whole.clips, whole.keys, strict=True) if not store.has(k)]
                if todo:
                    yield _clip_job(plan, method, seed, todo)
                continue
            asked = _case_job(method, task, seed, cases(task, plan.pairs))
            left = [c for c, k in zip(asked.cases, asked.keys, strict=True) if not store.has(k)]
            if task == "T6":  # needs all of them together
                left = list(asked.cases) if left else []
            size = len(left) if task == "T6" else plan.batch
            for first in range(0, len(left), max(size, 1)):
                yield _case_job(method, task, seed, left[first : first + size])


def _label(method: Method | str) -> str:
    return method if isinstance(method, str) else method.label


def _case_job(method: Method | str, task: str, seed: int, part: Sequence[Case]) -> Job:
    keys = tuple((task, _label(method), seed, case.pair.index, case.variant) for case in part)
    steps = 0 if isinstance(method, str) else method.steps
    if task == "T6" and steps:
        steps = 3 * INVARIANCE_STEPS
    return Job(method, task, seed, keys, cases=tuple(part), work=steps * len(part))


def _clip_job(plan: Plan, method: Method | str, seed: int, part: Sequence[Clip]) -> Job:
    if isinstance(method, str):
        part = [clip for clip in part if not clip.noisy]  # a picture has no detector
    keys = tuple(("T5", _label(method), seed, clip.pair.index, clip.variant) for clip in part)
    steps = 0 if isinstance(method, str) else method.steps + plan.frame_steps * (plan.frames - 1)
    return Job(method, "T5", seed, keys, clips=tuple(part), work=steps * len(part))


def _do(job: Job, plan: Plan, nets: Networks, folder: Path) -> list[dict[str, Any]]:
    """The numbers of a job, one dict per key."""
    if job.task == "T5":
        return _do_clips(job, plan, nets)
    batch = batch_of(job.cases, nets.size, plan.threads)
    if job.task == "T6":
        assert isinstance(job.method, Projection)
        return _invariance(job.method, batch, nets, job.seed)
    if isinstance(job.method, str):
        answer = who.given(job.method, batch)
    else:
        answer = job.method.answer(batch, nets, job.seed, curve=job.task == "T2")
    if job.task == "T2":
        _keep_pictures(job, answer, folder, plan)
    return score(batch, answer, nets)


def _do_clips(job: Job, plan: Plan, nets: Networks) -> list[dict[str, Any]]:
    if isinstance(job.method, str):
        shown = [render(clip.ideal, nets.size, plan.threads)[0] for clip in job.clips]
        return [
            score_clip(c, frames, 0.0, nets) for c, frames in zip(job.clips, shown, strict=True)
        ]
    assert isinstance(job.method, Projection)
    looks = render(np.stack([clip.pair.a for clip in job.clips]), nets.size, plan.threads)[0]
    track = np.stack([clip.points for clip in job.clips])
    frames, seconds = drive(
        job.method, nets, looks, track, frame_steps=plan.frame_steps, seed=job.seed
    )
    return [
        score_clip(clip, shown, seconds, nets)
        for clip, shown in zip(job.clips, frames, strict=True)
    ]


def _invariance(
    method: Projection, batch: Batch, nets: Networks, seed: int
) -> list[dict[str, Any]]:
    """Largest difference of each face's w, over its spread, and picture: batched against alone."""
    short = method.with_steps(INVARIANCE_STEPS)
    count = len(batch.cases)
    order = np.random.RandomState(0).permutation(count)

    def answer(indices: Sequence[int]) -> Answer:
        chosen = _choose(batch, indices)
        return short.answer(chosen, nets, seed)

    single = [answer([i]) for i in range(count)]
    whole, shuffled = answer(range(count)), answer(order.tolist())
    back = np.argsort(order)
    rows = []
    for i in range(count):
        alone, picture = _ws(single[i])[0], single[i].images[0]
        spread = float(alone.std())
        in_batch, in_shuffled = _ws(whole)[i], _ws(shuffled)[back[i]]
        rows.append(
            {
                "w_batch": float((in_batch - alone).abs().max() / spread),
                "w_shuffled": float((in_shuffled - alone).abs().max() / spread),
                "levels_batch": float((whole.images[i] - picture).abs().max() * 127.5),
                "spread": spread,
                "batch_size": count,
            }
        )
    return rows


def _choose(batch: Batch, indices: Sequence[int]) -> Batch:
    chosen = list(indices)
    target = None if batch.target is None else batch.target[chosen]
    return Batch(
        [batch.cases[i] for i in chosen],
        batch.look[chosen],
        batch.ideal[chosen],
        target,
        batch.look_points[chosen],
        batch.ideal_points[chosen],
    )


def _ws(answer: Answer) -> Tensor:
    assert answer.ws is not None
    return answer.ws


def _records(job: Job, rows: Sequence[dict[str, Any]]) -> list[Record]:
    subjects = [*(c.pair for c in job.cases), *(c.pair for c in job.clips)]
    return [
        {
            "task": task,
            "method": label,
            "seed": seed,
            "pair": pair,
            "variant": variant,
            "stratum": subject.stratum,
            "batch": len(rows),
            "values": values,
        }
        for (task, label, seed, pair, variant), subject, values in zip(
            job.keys, subjects, rows, strict=True
        )
    ]


def picture_path(folder: Path, label: str, pair: int) -> Path:
    """Where the picture of a method and a pair is kept for the contact sheet."""
    name = "".join(c if c.isalnum() or c in "._-+=" else "_" for c in label)
    return folder / "pictures" / name / f"{pair:03d}.png"


def _keep_pictures(job: Job, answer: Answer, folder: Path, plan: Plan) -> None:
    """Write the first seed's pictures, before the records that say the case is done."""
    if job.seed not in (NO_SEED, plan.seeds[0]):
        return
    for case, image in zip(job.cases, to_uint8(answer.images).numpy(), strict=True):
        if case.pair.index < plan.sheet:
            path = picture_path(folder, job.label, case.pair.index)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(path, image)


def _describe(job: Job) -> str:
    what = "clips" if job.clips else "cases"
    numbers = sorted({key[3] for key in job.keys})
    span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
    return f"{job.task} {job.label}, {len(job.keys)} {what} of pairs {span}"
