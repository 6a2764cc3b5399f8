"""A gallery of everything that can be done to a face, made on the sample models.

Each part is a function of the tools to one or more pictures, so that a part shows what its command
does, on faces drawn from a seed that no network was trained on.
"""

from __future__ import annotations

import dataclasses
import html
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyfacelat import procface, zoo
from pyfacelat.edits import boundaries
from pyfacelat.edits.mix import RECIPES, mix
from pyfacelat.edits.morph import morph
from pyfacelat.edits.rows import PUBLISHED_ROWS
from pyfacelat.edits.sampling import SampleConfig, sample
from pyfacelat.edits.sheets import frames, render, sheet
from pyfacelat.encoding import Encoder
from pyfacelat.faces.attributes import LandmarkScores
from pyfacelat.facespace import FaceData, FaceSpace, FitConfig, fit
from pyfacelat.facespace.charts import weight_chart
from pyfacelat.facespace.features import features_of
from pyfacelat.files import write_atomically
from pyfacelat.images import enlarge, from_uint8
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.projection import Projector, make_config
from pyfacelat.projection.space import LatentSpace, measure
from pyfacelat.swap import Swapper
from pyfacelat.video import write_mp4

__all__ = ["PARTS", "Effort", "Part", "make"]

Picture = np.ndarray[Any, Any]

_SEED = 20
_TILE = 128
_REACH = 2.5  # standard deviations


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much work goes into the pictures; the default is meant to be looked at."""

    inversion_steps: int = 150
    swap_steps: int = 60
    samples: int = 320
    epochs: int = 100
    faces: int = 4
    frames: int = 20


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the gallery.

    Attributes:
        name: of its files.
        title: heading.
        text: what is seen, in a sentence or two.
        command: that does this to one's own pictures.
        pictures: file name and picture, in order.
        seconds: it took.
    """

    name: str
    title: str
    text: str
    command: str
    pictures: list[tuple[str, Picture]]
    seconds: float = 0.0


class Tools:
    """Networks and faces that the parts share.

    Attributes:
        generator: the sample one.
        faces: procedural faces, uint8 [N,R,R,3].
        ws: what the encoder makes of them, [N,L,D].
        effort: see there.
    """

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.generator = zoo.load_generator("sample")
        z = np.random.default_rng(_SEED).standard_normal((max(effort.faces, 2), procface.Z_DIM))
        size = self.generator.img_resolution
        self.faces: Picture = procface.render(procface.from_latent(z), size)["image"]
        self.batch = torch.stack([from_uint8(face) for face in self.faces])
        self.ws = Encoder(align=False)(self.batch).ws
        self.statistics = measure(self.generator)
        self.space = LatentSpace(self.statistics, "w+", "whitened", self.generator.num_ws)
        self.metric = zoo.load_perceptual("sample")

    def own(self, count: int, first: int = 0) -> Tensor:
        """Latents [count,L,D] of the generator's own faces, a little truncated."""
        seeds = range(first, first + count)
        z = np.stack([np.random.RandomState(s).randn(self.generator.z_dim) for s in seeds])
        like = next(self.generator.parameters())
        with torch.no_grad():
            ws: Tensor = self.generator.mapping(torch.from_numpy(z).to(like), None, 0.8)
        return ws

    @torch.no_grad()
    def distance(self, pictures: Picture) -> list[float]:
        """Look distance of pictures [N,R,R,3] from the faces."""
        made = torch.stack([from_uint8(picture) for picture in pictures])
        found: list[float] = self.metric(made, self.batch[: len(made)]).tolist()
        return found


def inversion(tools: Tools) -> Part:
    """Faces, what the encoder sees in them, and that optimised for the look alone."""
    base = make_config("balanced")
    config = dataclasses.replace(base, stages=base.stages[:1], motion_rank=0, shape="take")
    config = make_config(config, steps=tools.effort.inversion_steps)
    result = Projector(preset=config, align=False).project(tools.batch)
    encoded = render(tools.generator, tools.ws)
    rows = [list(tools.faces), list(encoded), list(result.images)]
    told = [
        f"{name}, look distance {np.mean(tools.distance(pictures)):.3f}"
        for name, pictures in (("encoder", encoded), ("optimised", result.images))
    ]
    picture = sheet(rows, labels=["target", *told], side=_TILE)
    return Part(
        "inversion",
        "Inversion",
        "Faces that no network has seen, what the encoder makes of each in one pass, and the same "
        f"optimised for {tools.effort.inversion_steps} steps.",
        "pyfacelat encode face.png; pyfacelat project face.png",
        [("inversion", picture)],
    )


def transfer(tools: Tools) -> Part:
    """Style and expression of some faces on others."""
    originals, donors = tools.own(3, 40), tools.own(4, 60)
    pictures = []
    for name, recipe in RECIPES.items():
        mixed = mix(
            originals[:, None], donors[None], slice(*recipe.rows), psi=recipe.psi, of=PUBLISHED_ROWS
        )
        head = [None, *render(tools.generator, donors)]
        shown = zip(render(tools.generator, originals), render(tools.generator, mixed), strict=True)
        rows = [[first, *line] for first, line in shown]
        pictures.append((f"transfer-{name}", sheet([head, *rows], side=_TILE)))
    return Part(
        "transfer",
        "Style and expression transfer",
        "The faces on the left take colours and light, then half of the expression, from those "
        "above.",
        "pyfacelat mix a.png b.png --recipe style",
        pictures,
    )


def swaps(tools: Tools) -> Part:
    """Every face with every other."""
    count = min(3, len(tools.faces))
    swapper = Swapper(steps=tools.effort.swap_steps, align=False)
    table = swapper.table(list(tools.batch[:count]), names=[f"face {i + 1}" for i in range(count)])
    apart = ~torch.eye(count, dtype=torch.bool)
    before, after = (float(t[apart].mean()) for t in (table.to_person_before, table.to_person))
    return Part(
        "swap",
        "Face swap",
        "Rows are pictures, columns who is put into them; the diagonal is the originals. By the "
        f"identity network the swapped faces are {after:.2f} like their persons (cosine), where "
        f"the pictures were {before:.2f} like them.",
        "pyfacelat swap a.png b.png c.png --table",
        [("swap", table.sheet())],
    )


def attributes(tools: Tools) -> Part:
    """Boundaries fitted to what landmarks tell, and strips across them."""
    score = LandmarkScores(Landmarker(zoo.load_landmarker("sample")).points)
    drawn = sample(tools.generator, tools.effort.samples, score, SampleConfig(truncation=1.0))
    v = tools.space.from_ws(drawn.w[:, None])[:, 0].cpu()
    planes: dict[str, boundaries.Boundary] = {}
    for name in ("yaw", "mouth_open", "smile"):
        found = boundaries.fit_boundary(v, drawn.scores[name], space="w", share=0.15)
        found = boundaries.whitened(found, tools.space, tools.statistics.mean)
        # Each leaves alone what the ones before it change.
        planes[name] = boundaries.condition(found, list(planes.values()))
    start = tools.own(1, 41)
    away = torch.linspace(-_REACH, _REACH, 7)
    rows = [
        list(render(tools.generator, planes[name].edit_ws(start, away, relative=True)[0]))
        for name in planes
    ]
    labels = ["turn", "mouth", "smile"]
    return Part(
        "attributes",
        "Attributes",
        f"One face moved across planes in latent space, from {_REACH:g} standard deviations on the "
        f"one side to {_REACH:g} on the other; each plane leaves alone what those above it change. "
        f"They come from {tools.effort.samples} faces scored by their landmarks.",
        "pyfacelat boundary fit --attribute smile --out smile.npz; "
        "pyfacelat boundary apply smile.npz face.png",
        [("attributes", sheet(rows, labels=labels, side=_TILE))],
    )


def blends(tools: Tools) -> Part:
    """A face space of four faces, and mixtures of them with their weights."""
    names = [f"face {i + 1}" for i in range(len(tools.faces))]
    data = FaceData(names, tools.batch, torch.eye(len(names)), targets=tools.ws)
    space = fit(
        data,
        tools.generator,
        features_of(tools.metric),
        FitConfig(epochs=tools.effort.epochs, batch=2, cycle_rate=0.02),
        mean=tools.statistics.mean,
        spread=tools.statistics.std,
    )
    faces = sheet([list(tools.faces), list(space.render(space.z))], captions=names, side=_TILE)
    vectors = [
        {names[0]: 1.0, names[1]: 1.0},
        {names[-1]: 2.0, names[1]: 1.0},
        dict.fromkeys(names, 1.0),
    ]
    cells = [_with_chart(space, weights) for weights in vectors]
    return Part(
        "blends",
        "Face space",
        "Faces as axes: above the faces and what the fitted space gives for each, below mixtures "
        "with their weights.",
        "pyfacelat facespace train faces --out space.safetensors; "
        "pyfacelat facespace blend space.safetensors --weights anna=2,bert=1",
        [("faces", faces), ("blends", np.concatenate(cells))],
    )


def morphs(tools: Tools) -> Part:
    """A morph through three faces, as a strip; `make` writes the video."""
    path = _morph_path(tools)
    shown = path[np.linspace(0, len(path) - 1, 9).round().astype(int)]
    return Part(
        "morph",
        "Morph",
        "Through three faces, on straight lines in whitened W+.",
        "pyfacelat morph a.png b.png c.png",
        [("morph", sheet([list(render(tools.generator, shown))], side=_TILE))],
    )


PARTS: dict[str, Callable[[Tools], Part]] = {
    "inversion": inversion,
    "transfer": transfer,
    "swap": swaps,
    "attributes": attributes,
    "blends": blends,
    "morph": morphs,
}


def make(
    outdir: Path,
    effort: Effort | None = None,
    *,
    parts: tuple[str, ...] = tuple(PARTS),
    video: bool = True,
    quality: int = 88,
    say: Callable[[str], None] = print,
) -> list[Part]:
    """Write the gallery: a JPEG for each picture, morph.mp4, and gallery.html.

    Args:
        outdir: made if it is not there.
        effort: how much work goes into it.
        parts: names of `PARTS`.
        video: whether to write morph.mp4.
        quality: of the JPEGs, 1 to 95.
        say: receives a line for each part.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    tools = Tools(effort or Effort())
    made = []
    for name in parts:
        began = time.perf_counter()
        part = PARTS[name](tools)
        for file, picture in part.pictures:
            write_atomically(outdir / f"{file}.jpg", _jpeg(picture, quality))
        if name == "morph" and video:
            write_mp4(outdir / "morph.mp4", _large(tools, _morph_path(tools)), fps=25)
        part = dataclasses.replace(part, seconds=time.perf_counter() - began)
        say(f"{name:12} {part.seconds:6.1f} s")
        made.append(part)
    write_atomically(outdir / "gallery.html", _page(made, video).encode())
    return made


def _morph_path(tools: Tools) -> Tensor:
    ws = tools.ws[:3] if len(tools.ws) >= 3 else tools.ws
    return morph(ws, steps=tools.effort.frames, space=tools.space)


def _large(tools: Tools, path: Tensor) -> Iterator[Picture]:
    yield from (enlarge(frame, 256) for frame in frames(tools.generator, path))


def _with_chart(space: FaceSpace, weights: dict[str, float]) -> Picture:
    """A blend beside the bars of its weights."""
    face = enlarge(space.render(space.vector(weights))[0], _TILE)
    chart = weight_chart(space.names, [weights.get(name, 0.0) for name in space.names])
    height = max(len(face), len(chart)) + 6
    canvas = np.full((height, face.shape[1] + chart.shape[1], 3), 255, np.uint8)
    canvas[: len(face), : face.shape[1]] = face
    top = (height - len(chart)) // 2
    canvas[top : top + len(chart), face.shape[1] :] = chart
    return canvas


def _jpeg(picture: Picture, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _page(parts: list[Part], video: bool) -> str:
    sections = []
    for part in parts:
        shown = "".join(
            f'<p><img src="{file}.jpg" width="{picture.shape[1]}" alt="{part.title}"></p>'
            for file, picture in part.pictures
        )
        if part.name == "morph" and video:
            shown += '<p><video src="morph.mp4" controls loop width="256"></video></p>'
        sections.append(
            f"<h2>{html.escape(part.title)}</h2><p>{html.escape(part.text)}</p>{shown}"
            f"<pre>{html.escape(part.command)}</pre>"
        )
    return _PAGE.format(body="\n".join(sections))


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>pyfacelat: gallery</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}
img,video{{max-width:100%}}pre{{background:#f3f3f3;padding:.6em;overflow:auto}}</style>
<h1>Gallery</h1><p>Made by <code>pyfacelat gallery</code> with the sample models, 128 pixels, on a
CPU. The faces are drawn by a program.</p>
{body}
</html>
"""
