"""Train the sample models: `python -m pyfacelat.training.sample_models STAGE --out DIR`.

Stages: data (render the faces), generator, judge, fan, encoder, calibrate (fit the encoder's
channel weights as a perceptual metric), identity, discriminator, assets (export the averaged
weights as fp16 and render the example portraits), evaluate (measure the exported files and write
the model card), all (everything in this order). Every stage continues after a kill. Progress goes
to stdout and DIR/<stage>/log.jsonl, sample sheets to DIR/<stage>/sheet_*.png.

One thread per process is set on purpose: with a foreign job on the machine, two OpenMP threads wait
for each other and are many times slower; run two stages side by side instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat import procface, zoo
from pyfacelat.files import write_atomically

from . import assets, models
from .calibrate import calibrate, measure, render_pairs
from .data import FaceSet, face_set, procedural_source
from .discriminator_task import DiscriminatorTask, discriminator_phases
from .encoder_task import EncoderTask, encoder_phases
from .evaluate import (
    evaluate_discriminator,
    evaluate_encoder,
    evaluate_fan,
    evaluate_generator,
    evaluate_identity,
    generate,
)
from .fan_task import FANTask, fan_phases
from .fast_generator import FastGenerator
from .generator_task import GeneratorTask, generator_phases
from .identity_task import IdentityTask, identity_columns, identity_phases, same_people
from .loop import Phase, load_ema, run
from .sheets import save_sheet

__all__ = ["evaluate", "main"]

TRAINED = ("generator", "judge", "fan", "encoder", "identity", "discriminator")
STAGES = ("data", *TRAINED[:4], "calibrate", *TRAINED[4:], "assets", "evaluate", "all")
MINUTES = {
    "generator": 50.0,
    "judge": 6.0,
    "fan": 10.0,
    "encoder": 20.0,
    "identity": 6.0,
    "discriminator": 5.0,
}
"""Wall minutes of each training stage on one quiet core; enough at 128 px."""
NET_SEEDS = {name: seed for seed, name in enumerate(("generator", "fan", "judge", *TRAINED[3:]), 1)}
JUDGE_WIDTH = 48
AGAIN = 8192
"""Faces of the training split of which the identity net sees another picture."""
PAIR_FACES = {"train": 32, "test": 24}
"""Faces that are changed in every way to fit and to measure the perceptual metric."""
PAIR_SEEDS = {"train": 31, "test": 32}
SUBSET = 32
"""Faces of the quick evaluation that a test repeats."""
SUBSET_PAIR_FACES = 2
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
    parser.add_argument(
        "--test-files", type=Path, help="folder of judge and discriminator; default: OUT"
    )
    parser.add_argument("--size", type=int, default=128, choices=(32, 64, 128))
    parser.add_argument("--count", type=int, default=32768, help="training faces")
    parser.add_argument("--held", type=int, default=2048, help="faces to measure on")
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
        elif stage == "calibrate":
            fit_metric(options)
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
        "identity": lambda: identity_phases(minutes, options.steps),
        "discriminator": lambda: discriminator_phases(minutes, options.steps),
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
        # Pose and expression are what a projection is asked to keep apart from the rest.
        moving = (*procface.names("pose"), *procface.names("expression"))
        weight = torch.tensor([2.0 if name in moving else 1.0 for name in procface.names()])
        task = EncoderTask(encoder, data, held, phases, weight=weight)
    elif stage == "identity":
        own = identity_columns()
        net = models.new_identity(models.identity_config(len(own), options.size), seed)
        again = _again(options, "train"), _again(options, "val")
        task = IdentityTask(net, data, held, *again, own, phases)
    elif stage == "discriminator":
        generated = _generator_or_none(options, z_dim)
        if generated is None:
            raise SystemExit("discriminator: needs a trained generator in OUT/generator")
        critic = models.new_discriminator(models.discriminator_config(options.size), seed)
        task = DiscriminatorTask(critic, data, held, generated, phases)
    else:
        width = JUDGE_WIDTH if stage == "judge" else 64
        fan = models.new_fan(models.fan_config(options.size, width), seed)
        generated = _generator_or_none(options, z_dim) if stage == "fan" else None
        task = FANTask(fan, data, held, phases, generate=generated, name=stage)
    if weights is not None:
        if stage == "generator":
            weights = models.grow_generator(weights, task.net)
        elif stage == "encoder":  # another renderer's latents mean something else
            weights.update(
                {k: v for k, v in task.net.state_dict().items() if k.startswith("latent_head.")}
            )
        task.net.load_state_dict(weights)
    run(
        task,
        options.out / stage,
        seed=seed,
        origin=origin,
        stop_after=options.stop_after,
        say=_say,
    )


def fit_metric(options: argparse.Namespace) -> None:
    """Fit the encoder's channel weights; OUT/calibrate/lins.pt holds them."""
    folder = options.out / "calibrate"
    folder.mkdir(parents=True, exist_ok=True)
    z_dim = procface.Z_DIM
    encoder = models.new_encoder(models.encoder_config(z_dim, options.size), 0).eval()
    encoder.load_state_dict(load_ema(options.out / "encoder")[0])
    train, held = (
        render_pairs(PAIR_SEEDS[split], PAIR_FACES[split], options.size, options.threads)
        for split in ("train", "test")
    )
    lins, numbers = calibrate(encoder, train, held)
    write_atomically(folder / "numbers.json", json.dumps(numbers, indent=1).encode() + b"\n")
    buffer = io.BytesIO()
    torch.save({f"lin{k}": lin for k, lin in enumerate(lins)}, buffer)
    write_atomically(folder / "lins.pt", buffer.getvalue())
    for name, found in numbers.items():
        _say(f"calibrate: {name} weights: {_flat(found)}")


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
    for stage in TRAINED:
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
            weights.update(_lins(options))
            encoder.load_state_dict(weights)
            assets.export_encoder(options.assets / "encoder.safetensors", encoder, about)
        elif stage == "identity":
            own = len(identity_columns())
            identity = models.new_identity(models.identity_config(own, options.size), 0)
            identity.load_state_dict(weights)
            assets.export_identity(options.assets / "identity.safetensors", identity, about)
        elif stage == "discriminator":
            critic = models.new_discriminator(models.discriminator_config(options.size), 0)
            critic.load_state_dict(weights)
            assets.export_discriminator(
                _test_files(options) / "discriminator.safetensors", critic, about
            )
        else:
            width = JUDGE_WIDTH if stage == "judge" else 64
            fan = models.new_fan(models.fan_config(options.size, width), 0)
            fan.load_state_dict(weights)
            target = options.assets / "fan.safetensors"
            if stage == "judge":
                target = _test_files(options) / "judge_fan.safetensors"
            assets.export_fan(target, fan, about)
        _say(f"{stage}: exported")
    assets.export_motion(options.assets, about)
    _say("motion: learnt from the generator's faces")
    assets.write_examples(options.assets)


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the exported files on held-out faces; write the model card and two sheets.

    Returns:
        See `measure_files`; "subset" has the same on the first few faces.
    """
    held, again = _faces(options, "test"), _again(options, "test")
    files = options.assets, _test_files(options)
    numbers = measure_files(*files, held, again, options.held, PAIR_FACES["test"])
    numbers["subset"] = measure_files(*files, held, again, SUBSET, SUBSET_PAIR_FACES)
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
    fitted = options.out / "calibrate" / "numbers.json"
    if fitted.exists():
        facts[
            "Perceptual metric, rank correlation with the parameters' distance where one "
            "parameter differs"
        ] = (
            ", ".join(
                f"{name} {found['rank_one']:.2f}"
                for name, found in json.loads(fitted.read_text()).items()
            )
            + " (the stage maps alone, with the windows, with fitted weights)"
        )
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
    for name, found in numbers.items():
        if name != "subset":
            _say(f"{name}: {_flat(found)}")
    return numbers


def measure_files(
    folder: Path, test_files: Path, held: FaceSet, again: FaceSet, count: int, pair_faces: int
) -> dict[str, Any]:
    """Every number of the model card.

    Args:
        folder: of the packaged files.
        test_files: folder of judge and discriminator.
        held: held-out faces.
        again: other pictures of the same people.
        count: how many of them to measure on.
        pair_faces: faces that are changed in every way to measure the perceptual metric.

    Returns:
        generator, fan, judge, encoder, perceptual, identity, discriminator: dicts of numbers.
    """
    generator = zoo.load_generator(folder / "generator.safetensors")
    fan = zoo.load_landmarker(folder / "fan.safetensors")
    encoder = zoo.load_encoder(folder / "encoder.safetensors")
    judge = zoo.load_landmarker(test_files / "judge_fan.safetensors")
    critic = zoo.load_discriminator(test_files / "discriminator.safetensors")
    made = generate(generator, held.batch(np.arange(min(count, len(held))))[0])
    pairs = render_pairs(PAIR_SEEDS["test"], pair_faces, held.size)
    return {
        "generator": evaluate_generator(made, held, judge),
        "fan": evaluate_fan(fan, held, made),
        "judge": evaluate_fan(judge, held, made),
        "encoder": evaluate_encoder(encoder, held, count),
        "perceptual": measure(zoo.load_perceptual(folder / "encoder.safetensors"), pairs),
        "identity": evaluate_identity(
            zoo.load_identity(folder / "identity.safetensors"), held, again, count
        ),
        "discriminator": evaluate_discriminator(critic, held, made),
    }


def _faces(options: argparse.Namespace, split: str) -> FaceSet:
    count = {"train": options.count, "val": 512, "test": options.held}[split]
    source = procedural_source(options.threads)
    return face_set(options.out / "data", split, count, options.size, source=source, progress=_say)


def _again(options: argparse.Namespace, split: str) -> FaceSet:
    """Other pictures of the people of a split's first faces."""
    count = {"train": min(AGAIN, options.count), "val": 512, "test": options.held}[split]
    folder = options.out / "data_again"
    source = same_people(options.threads)
    return face_set(folder, split, count, options.size, source=source, progress=_say)


def _lins(options: argparse.Namespace) -> dict[str, Tensor]:
    """The encoder's fitted channel weights, as `fit_metric` left them."""
    file = options.out / "calibrate" / "lins.pt"
    if not file.exists():
        raise FileNotFoundError(f"{file}: not there; run the stage calibrate first")
    lins: dict[str, Tensor] = torch.load(file, weights_only=True)
    return lins


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


def _test_files(options: argparse.Namespace) -> Path:
    folder: Path = options.test_files or options.out
    return folder


def _flat(numbers: Mapping[str, Any]) -> str:
    """The numbers that are no tables, as a line."""
    return ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if not isinstance(v, dict))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
