"""The command line.

Exit codes: 0 done, 1 failed run, 2 usage, 3 no face, 4 missing weights, 5 bad file, 130
interrupted, 143 terminated.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from pyfacelat.cli import facespace
from pyfacelat.cli.align import align, landmarks
from pyfacelat.cli.animate import animate, frames
from pyfacelat.cli.boundary import apply as boundary_apply
from pyfacelat.cli.boundary import fit as boundary_fit
from pyfacelat.cli.convert import convert
from pyfacelat.cli.demo import demo
from pyfacelat.cli.doctor import doctor
from pyfacelat.cli.edit import edit
from pyfacelat.cli.encode import encode, generate
from pyfacelat.cli.export import fan as export_fan
from pyfacelat.cli.fetch import fetch
from pyfacelat.cli.gallery import gallery
from pyfacelat.cli.inspect import inspect
from pyfacelat.cli.mix import mix
from pyfacelat.cli.morph import morph
from pyfacelat.cli.project import project
from pyfacelat.cli.swap import swap
from pyfacelat.cli.train import encoder as train_encoder
from pyfacelat.errors import (
    CheckpointError,
    ConfigError,
    DownloadError,
    FacelatError,
    ImageError,
    LandmarkError,
    MissingWeightsError,
    NoFaceError,
)
from pyfacelat.version import __version__

app = typer.Typer(
    name="pyfacelat",
    help="Project faces into a StyleGAN2 latent space under a look target and a landmark target.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_EXIT_CODES: tuple[tuple[type[FacelatError], int], ...] = (
    (NoFaceError, 3),
    (MissingWeightsError, 4),
    (DownloadError, 4),
    (CheckpointError, 5),
    (ImageError, 5),
    (LandmarkError, 5),
    (ConfigError, 2),
)
_FLAGS = (
    "--save-video", "--save-frames", "--midpoints", "--resume", "--json", "--half", "--force",
    "--smooth", "--table", "--quick",
)  # fmt: skip
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors raised on purpose into one line and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("interrupted; run again with --resume to continue", err=True)
            raise typer.Exit(130) from None
        except SystemExit as stop:
            if stop.code == 143:  # SIGTERM, after the state was saved
                typer.echo("terminated; run again with --resume to continue", err=True)
            raise
        except FacelatError as error:
            typer.echo(f"pyfacelat: {error}", err=True)
            code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
            raise typer.Exit(code) from None

    return run


for _command in (
    project, animate, swap, encode, generate, align, landmarks, frames, mix, morph, edit, gallery,
    demo,
    convert, inspect, fetch, doctor,
):  # fmt: skip
    app.command()(_guarded(_command))

_export = typer.Typer(no_args_is_help=True, help="Write networks for other engines.")
_export.command()(_guarded(export_fan))
app.add_typer(_export, name="export")

_train = typer.Typer(no_args_is_help=True, help="Train networks on a generator's faces.")
_train.command()(_guarded(train_encoder))
app.add_typer(_train, name="train")

_boundary = typer.Typer(no_args_is_help=True, help="Attributes as planes in latent space.")
_boundary.command()(_guarded(boundary_fit))
_boundary.command()(_guarded(boundary_apply))
app.add_typer(_boundary, name="boundary")

_facespace = typer.Typer(no_args_is_help=True, help="A few faces as axes: blends and morphs.")
_facespace.command()(_guarded(facespace.train))
_facespace.command()(_guarded(facespace.blend))
_facespace.command()(_guarded(facespace.morph))
_facespace.command()(_guarded(facespace.pose))
_facespace.command()(_guarded(facespace.frames))
app.add_typer(_facespace, name="facespace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code instead of raising."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=normalise(given), prog_name="pyfacelat")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def normalise(arguments: Sequence[str]) -> list[str]:
    """Accept the spellings of related tools: underscores in option names, and words for flags.

    `--target_look a.png --save_video true` becomes `--target-look a.png --save-video`, and
    `--save-video=0` becomes `--no-save-video`.
    """
    result: list[str] = []
    pending = list(arguments)
    while pending:
        item = pending.pop(0)
        if item == "--":
            return [*result, item, *pending]
        if not item.startswith("--"):
            result.append(item)
            continue
        name, equals, value = item.partition("=")
        name = name.replace("_", "-")
        if name in _FLAGS:
            word = value if equals else pending[0] if pending else ""
            if word.lower() in _WORDS:
                if not equals:
                    pending.pop(0)
                if _WORDS[word.lower()]:
                    result.append(name)
                elif name == "--save-video":
                    result.append("--no-save-video")
                continue
        result.append(name + equals + value)
    return result
