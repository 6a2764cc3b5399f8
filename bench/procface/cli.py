"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.procface import methods as who
from bench.procface import report
from bench.procface.machine import machine, now, versions
from bench.procface.networks import JUDGE, Networks, Sources
from bench.procface.pairs import SEED, fingerprint, fixed_pairs
from bench.procface.progress import say
from bench.procface.run import Plan, run
from bench.procface.store import Record, Store, merge
from bench.procface.tasks import TASKS
from pyfacelat import procface
from pyfacelat.errors import CheckpointError, ConfigError, FacelatError, MissingWeightsError
from pyfacelat.projection.config import check_choice
from pyfacelat.projection.outdir import Outdir

_QUICK, _FULL = 12, 100
_IDENTITY_PAIRS = 12
"""The first so many pairs stand for the list: it grows with --pairs, and its beginning stays."""

_EPILOG = """methods (a list with commas):
  balanced                 any preset of the package
  reference:0.05           a preset at another landmark weight
  preset:balanced:steps=100:space=w:pixel=2:outer_lip=3
                           steps, space, pose, perceptual_mask, landmark_backend, weights by
                           loss term and by landmark group
  wplus-look-only          reference:space=w+:landmark=0
  layer-swap[:psi=0.5:rows=3-10]
                           rows of B's inversion mixed into A's

examples:
  python -m bench.procface --quick --out runs/quick
  python -m bench.procface --method balanced,reference:0.05 --tasks T2 --pairs 30 --out runs/t2
  python -m bench.procface --merge runs/cpu runs/gpu --out runs/both
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code: 2 usage, 4 missing weights, 5 bad file, 130."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.threads is not None:
        if args.threads < 1:
            parser.error(f"--threads: expected at least 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    command = shlex.join(sys.argv[1:] if argv is None else argv)
    try:
        with Outdir(args.out):
            text = _merge(args, command) if args.merge else _run(args, command)
    except KeyboardInterrupt:
        say(f"interrupted; what was done is in {args.out}: run again with --resume to go on")
        return 130
    except FacelatError as error:
        say(f"bench.procface: {error}")
        codes = ((MissingWeightsError, 4), (CheckpointError, 5), (ConfigError, 2))
        return next((code for kind, code in codes if isinstance(error, kind)), 1)
    print(text)
    print(f"\n{args.out / 'report.html'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.procface",
        description="Does landmark control work? Measured where the exact answer is known.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = ",".join(("balanced", *who.BASELINES))
    add("--out", type=Path, default=Path("procface-out"), help="folder for the results")
    add("--method", default=default, help=f"who answers; default {default}")
    add("--tasks", default=",".join(TASKS), help="of T1 to T6; default all")
    add("--pairs", type=int, help=f"how many of the fixed pairs; default {_FULL}")
    add("--quick", action="store_true", help=f"{_QUICK} pairs")
    add("--seeds", default="303", help="of the projections, e.g. 303,304,305; each is a full run")
    add("--batch", type=int, default=8, help="faces projected together; default 8")
    add("--threads", type=int, help="of torch and of the renderer; default torch's own choice")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--resume", action="store_true", help="go on with the results in --out")
    add("--merge", type=Path, nargs="+", metavar="DIR", help="only report on these runs together")
    add("--clips", type=int, help="of T5; default one for each 32 pairs, at least one")
    add("--frames", type=int, default=64, help="of a clip; default 64")
    add("--frame-steps", type=int, default=40, help="steps of each frame but the first; default 40")
    add("--reach", type=float, nargs=2, default=(0.06, 0.8), metavar=("NME", "LOOK"),
        help="goals of the time to reach: NME to the ideal, and look distance to it over A's own; "
        "default 0.06 0.8")  # fmt: skip
    add("--sheet", type=int, default=9, help="rows of the contact sheet; default 9")
    nets = parser.add_argument_group("networks: a name or a file")
    nets.add_argument("--generator", default="sample", help="sample, or StyleGAN2")
    nets.add_argument("--landmarker", default="auto", help="sample, 2dfan4, or a FAN")
    nets.add_argument(
        "--perceptual", default="auto", help="sample, lpips-vgg16, or an encoder as look metric"
    )
    nets.add_argument("--encoder", default="auto", help="sample, none, or an image-to-latent net")
    nets.add_argument("--judge", default=str(JUDGE), help="a FAN that no loss sees")
    return parser


def _run(args: argparse.Namespace, command: str) -> str:
    methods = who.parse(args.method)
    tasks = _words(args.tasks)
    for task in tasks:
        check_choice("tasks", task, TASKS)
    seeds = [_seed(word) for word in _words(args.seeds)]
    for name, least in (("batch", 1), ("frame_steps", 1), ("sheet", 0)):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise ConfigError(f"{option}: expected at least {least}, got {getattr(args, name)}")
    if args.quick and args.pairs is not None:
        raise ConfigError(f"pairs: --quick is {_QUICK} pairs; give one of the two")
    count = _QUICK if args.quick else _FULL if args.pairs is None else args.pairs
    if count < 1:
        raise ConfigError(f"pairs: expected at least 1, got {count}")
    pairs = fixed_pairs(max(count, _IDENTITY_PAIRS), threads=args.threads)
    identity = fingerprint(pairs[:_IDENTITY_PAIRS])
    pairs = pairs[:count]
    clips = max(1, count // 32) if args.clips is None else args.clips
    if clips < 1:
        raise ConfigError(f"clips: expected at least 1, got {clips}")
    sources = Sources(args.generator, args.landmarker, args.perceptual, args.encoder, args.judge)
    nets = Networks(sources, args.device)
    header = {
        "pairs": {"seed": SEED, "sha256_of_first_12": identity, "parameters": procface.Z_DIM},
        "resolution": nets.size,
        "files": {role: [list(file) for file in files] for role, files in nets.files.items()},
        "clip": {"frames": args.frames, "frame_steps": args.frame_steps},
    }
    settings = {method.label: method.settings() for method in methods}
    store = Store(args.out, header, settings, resume=args.resume)
    plan = Plan(methods, tasks, pairs, seeds, args.batch, clips, args.frames, args.frame_steps,
                args.sheet, args.threads)  # fmt: skip
    say(f"{len(pairs)} pairs at {nets.size} px, {', '.join(tasks)}: {', '.join(settings)}")
    about = {
        "date": now(),
        "command": f"python -m bench.procface {command}",
        "machine": machine(nets.device),
        "versions": versions(),
        "settings": {"seeds": seeds, "batch": args.batch, "tasks": tasks, "resumed": args.resume},
        **header,
        "methods": store.methods,
    }
    try:
        run(plan, nets, store)
    except (KeyboardInterrupt, FacelatError):
        _report(args, store.records, about, [args.out])  # what there is, is worth seeing
        raise
    return _report(args, store.records, about, [args.out])


def _merge(args: argparse.Namespace, command: str) -> str:
    content, records = merge(args.merge)
    about = {
        "date": now(),
        "command": f"python -m bench.procface {command}",
        "merged": {str(folder): _machine_of(folder) for folder in args.merge},
        "versions": versions(),
        **content["header"],
        "methods": content["methods"],
    }
    return _report(args, records, about, args.merge)


def _report(
    args: argparse.Namespace,
    records: Sequence[Record],
    about: dict[str, Any],
    folders: Sequence[Path],
) -> str:
    if not records:
        return "nothing was run"
    methods = who.parse(",".join(about["methods"]))
    last = max(record["pair"] for record in records)
    nme, look_share = args.reach
    return report.write(
        args.out,
        folders,
        records,
        fixed_pairs(last + 1, threads=args.threads)[: args.sheet],
        about,
        {method.label: method.family for method in methods},
        {"nme": nme, "look_share": look_share},
    )


def _machine_of(folder: Path) -> Any:
    """Machine and date of an earlier run, as its results say."""
    try:
        known = json.loads((folder / "results.json").read_text())
        return {name: known[name] for name in ("date", "machine", "versions")}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"merge: {folder}: no results of a finished run ({error})") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seed(word: str) -> int:
    if not word.isdigit():
        raise ConfigError(f"seeds: expected whole numbers with commas, got {word!r}")
    return int(word)
