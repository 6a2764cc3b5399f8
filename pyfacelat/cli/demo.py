"""`pyfacelat demo`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from pyfacelat.cli.options import JsonOption
from pyfacelat.cli.project import ResumeOption, VideoOption, run


def demo(
    outdir: Annotated[Path, typer.Option(help="Where the results are written.")] = Path("demo-out"),
    preset: Annotated[str, typer.Option(help="fast, balanced, best or reference.")] = "balanced",
    save_video: VideoOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Project the look of one bundled portrait onto the landmarks of the other.

    Runs offline, on the sample models, in seconds on a CPU.
    """
    assets = resources.files("pyfacelat") / "assets"
    with (
        resources.as_file(assets / "look.png") as look,
        resources.as_file(assets / "landmarks.png") as landmarks,
    ):
        run(
            str(look),
            str(landmarks),
            outdir=outdir,
            save_video=save_video,
            as_json=as_json,
            preset=preset,
            resume=resume,
        )
