"""Train the sample models: `python -m pyfacelat.training.sample_models STAGE --out DIR`.

Stages: data (render the faces), generator, judge, fan, encoder, assets (export the averaged weights
as fp16 and render the example portraits), evaluate (measure the exported files and write the model
card), all (everything in this order). Every stage continues after a kill. Progress goes to stdout
and DIR/<stage>/log.jsonl, sample sheets to DIR/<stage>/sheet_*.png.

One thread per process is set on purpose: with a foreign job on the machine, two OpenMP threads wait
for each other and are many times slower; run two stages side by side instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat import procface, zoo

from . import assets, models
from .data import FaceSet, face_set, procedural_source
from .encoder_task import EncoderTask, encoder_phases
from .evaluate import evaluate_encoder, evaluate_fan, evaluate_generator, generate
from .fan_task import FANTask, fan_phases
from .fast_generator import FastGenerator
from .generator_task import GeneratorTask, generator_phases
from .loop import Phase, load_ema, run
from .sheets import save_sheet

__all__ = ["evaluate", "main"]

STAGES = ("data", "generator", "judge", "fan", "encoder", "assets", "evaluate", "all")
MINUTES = {"generator": 20.0, "judge": 3.0, "fan": 8.0, "encoder": 6.0}
"""Wall minutes of each training stage on one quiet core; enough at 64 px."""
NET_SEEDS = {"generator": 1, "fan": 2, "judge": 3, "encoder": 4}
JUDGE_WIDTH = 48
SUBSET = 48
"""Faces of the quick evaluation that a test repeats."""
PACKAGED = Path(__file__).resolve().parent.parent / "assets"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pyfacelat.training.sample_models",
        description="Train the sample models on procedural faces.",
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--assets", type=Path, default=PACKAGED, help="folder of exported files")
    parser.add_argument("--judge-file", type=Path, help="default: OUT/judge_fan.safetensors")
    parser.add_argument("--size", type=int, default=64, choices=(32, 64, 128))
    parser.add_argument("--count", type=int, default=32768, help="training faces")
    parser.add_argument("--held", type=int, default=1024, help="faces to measure on")
    parser.add_argument("--minutes", type=float, help="wall minutes of the stage's training")
    parser.add_argument("--steps", type=int, help="steps per phase instead of minutes")
    parser.add_argument("--warm", type=Path, help="run folder whose weights to start from")
    parser.add_argument("--phases", help="only these phases, separated by commas")
    parser.add_argument("--stop-after", help="stop after the phase of this name")
    parser.add_argument("--note", action="append", default=[], help="a line for the model card")
    parser.add_argument("--threads", type=int, default=1, help="of torch and the renderer")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    stages = STAGES[:-1] if options.stage == "all" else (options.stage,)
    for stage in stages:
        if stage == "data":
            for split in ("train", "val", "test"):
                _faces(options, split)
        elif stage == "assets":
            export(options)
        elif stage == "evaluate":
            evaluate(options)
        else:
            train(stage, options)
    return 0


def train(stage: str, options: argparse.Namespace) -> None:
    """Run one training stage to its end (or to --stop-after)."""
    minutes = None if options.steps else (options.minutes or MINUTES[stage])
    data, held = _faces(options, "train"), _faces(options, "val")
    seed = NET_SEEDS[stage]
    z_dim = data.z.shape[1]
    weights, origin = _start(options)
    phases = {
        "generator": lambda: generator_phases(options.size, minutes, options.steps),
        "encoder": lambda: encoder_phases(minutes, options.steps),
        "judge": lambda: fan_phases(minutes, options.steps, generated=False),
        "fan": lambda: fan_phases(minutes, options.steps),
    }[stage]()
    if options.phases:
        phases = _chosen(phases, options.phases.split(","), minutes)
    task: Any
    if stage == "generator":
        generator = models.new_generator(models.generator_config(z_dim, options.size), seed)
        reached = [int(part["phase"].split("px")[0]) for part in origin]
        task = GeneratorTask(generator, data, held, phases, trained=max(reached, default=0))
    elif stage == "encoder":
        encoder = models.new_encoder(models.encoder_config(z_dim, options.size), seed)
        task = EncoderTask(encoder, data, held, phases)
    else:
        width = JUDGE_WIDTH if stage == "judge" else 64
        fan = models.new_fan(models.fan_config(options.size, width), seed)
        generated = _generator_or_none(options, z_dim) if stage == "fan" else None
        task = FANTask(fan, data, held, phases, generate=generated, name=stage)
    if weights is not None:
        if stage == "generator":
            weights = models.grow_generator(weights, task.net)
        task.net.load_state_dict(weights)
    run(
        task,
        options.out / stage,
        seed=seed,
        origin=origin,
        stop_after=options.stop_after,
        say=_say,
    )


def _start(options: argparse.Namespace) -> tuple[dict[str, Tensor] | None, list[dict[str, Any]]]:
    """Weights and history of the run that --warm names."""
    if options.warm is None:
        return None, []
    weights, history = load_ema(options.warm)
    suffix = ", before a warm start"
    names = [part["phase"].removesuffix(suffix) + suffix for part in history]
    return weights, [{**part, "phase": name} for part, name in zip(history, names, strict=True)]


def _chosen(phases: list[Phase], names: Sequence[str], minutes: float | None) -> list[Phase]:
    """Pick the named phases, sharing all the minutes."""
    known = [phase.name for phase in phases]
    for name in names:
        if name not in known:
            raise SystemExit(f"--phases: expected names out of {', '.join(known)}, got {name!r}")
    chosen = [phase for phase in phases if phase.name in names]
    if minutes is None:
        return chosen
    total = sum(phase.minutes or 0.0 for phase in chosen)
    return [
        dataclasses.replace(phase, minutes=minutes * (phase.minutes or 0.0) / total)
        for phase in chosen
    ]


def export(options: argparse.Namespace) -> None:
    """Write averaged weights of the runs in OUT, and example portraits, to the assets folder."""
    options.assets.mkdir(parents=True, exist_ok=True)
    z_dim = procface.Z_DIM
    about = {"domain": "pyfacelat.procface", "size": str(options.size)}
    for stage in ("generator", "fan", "judge", "encoder"):
        try:
            weights, _ = load_ema(options.out / stage)
        except FileNotFoundError:
            if options.stage == "all":
                raise
            _say(f"{stage}: nothing trained in {options.out / stage}, left as it is")
            continue
        if stage == "generator":
            net = models.new_generator(models.generator_config(z_dim, options.size), 0)
            net.load_state_dict(weights)
            assets.export_generator(options.assets / "generator.safetensors", net, about)
        elif stage == "encoder":
            encoder = models.new_encoder(models.encoder_config(z_dim, options.size), 0)
            encoder.load_state_dict(weights)
            assets.export_encoder(options.assets / "encoder.safetensors", encoder, about)
        else:
            width = JUDGE_WIDTH if stage == "judge" else 64
            fan = models.new_fan(models.fan_config(options.size, width), 0)
            fan.load_state_dict(weights)
            target = options.assets / "fan.safetensors"
            assets.export_fan(_judge_file(options) if stage == "judge" else target, fan, about)
        _say(f"{stage}: exported")
    assets.write_examples(options.assets)


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the exported files on held-out faces; write the model card and two sheets.

    Returns:
        generator, fan, judge, encoder: dicts of numbers; subset: the same on the first few faces.
    """
    held = _faces(options, "test")
    numbers = measure(options.assets, _judge_file(options), held, options.held)
    numbers["subset"] = measure(options.assets, _judge_file(options), held, SUBSET)
    runs: dict[str, Any] = {}
    for stage in NET_SEEDS:
        try:
            runs[stage] = load_ema(options.out / stage)[1]
        except FileNotFoundError:
            _say(f"{stage}: no run in {options.out}; the card will not tell how it was trained")
    training = _faces(options, "train")
    facts = {
        "Command": "`python -m pyfacelat.training.sample_models all --out DIR "
        f"--size {options.size} --count {options.count}`, one thread",
        "Training faces": f"{len(training)} and their mirror images, sha256 `{training.sha256}`",
        "Held-out faces": f"{len(held)}, sha256 `{held.sha256}`",
        "Seeds": ", ".join(f"{k} {v}" for k, v in NET_SEEDS.items()),
        "torch": torch.__version__,
    }
    facts.update(
        {"Note" if not i else f"Note {i + 1}": text for i, text in enumerate(options.note)}
    )
    assets.write_card(options.assets, numbers, runs, facts)
    generator = zoo.load_generator(options.assets / "generator.safetensors")
    z, images, _, _ = held.batch(np.arange(40))
    made = generate(generator, z)
    rows = [part for i in range(0, 40, 10) for part in (images[i : i + 10], made[i : i + 10])]
    save_sheet(options.out / "sheet_pairs.png", rows)
    rng = torch.Generator().manual_seed(0)
    fresh = generate(generator, torch.randn(64, generator.z_dim, generator=rng))
    save_sheet(options.out / "sheet_64.png", list(fresh.split(8)))
    _say(json.dumps({k: numbers[k] for k in ("generator", "fan", "judge")}, indent=1))
    _say(f"encoder: mean R2 {numbers['encoder']['r2_mean']:.3f}")
    return numbers


def measure(folder: Path, judge_file: Path, held: FaceSet, count: int) -> dict[str, Any]:
    """Every number of the model card, on the first `count` held-out faces."""
    generator = zoo.load_generator(folder / "generator.safetensors")
    fan = zoo.load_landmarker(folder / "fan.safetensors")
    encoder = zoo.load_encoder(folder / "encoder.safetensors")
    judge = zoo.load_landmarker(judge_file)
    names = [p.name for p in procface.PARAMS]
    return {
        "generator": evaluate_generator(generator, held, count, judge),
        "fan": evaluate_fan(fan, held, count, generator),
        "judge": evaluate_fan(judge, held, count, generator),
        "encoder": evaluate_encoder(encoder, held, count, names),
    }


def _faces(options: argparse.Namespace, split: str) -> FaceSet:
    count = {"train": options.count, "val": 512, "test": options.held}[split]
    source = procedural_source(options.threads)
    return face_set(options.out / "data", split, count, options.size, source=source, progress=_say)


def _generator_or_none(options: argparse.Namespace, z_dim: int) -> Any:
    """Load the averaged generator of OUT/generator as a function of z, if it was trained."""
    try:
        weights, _ = load_ema(options.out / "generator")
    except FileNotFoundError:
        return None
    generator = models.new_generator(models.generator_config(z_dim, options.size), 0)
    generator.load_state_dict(weights)
    generator.requires_grad_(False)
    fast = FastGenerator(generator, torch.bfloat16)

    def images(z: Tensor) -> Tensor:
        return fast(z)

    return images


def _judge_file(options: argparse.Namespace) -> Path:
    file: Path = options.judge_file or options.out / "judge_fan.safetensors"
    return file


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
