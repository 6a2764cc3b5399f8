"""Face swap: a picture kept as it is, but for who is in it.

A projection of the picture (the *look*) whose identity term asks for somebody else (the *person*):

    "published":  LPIPS + 0.5 (1 - MS-SSIM) + 1.5 (1 - cos(A(image), A(person)))

from the encoder's latents of the look, Adam with rate 0.01 in W+, 100 steps, with A a face
recognition network. The published program also weighs a noise regulariser with 5e5; its noise is
not optimised, so that the term is constant, and it is left out here.

    "default":    the same terms in whitened W+, where one rate suits every generator, with the
                  identity stronger, the look's landmarks held, and the latents kept likely

Pictures cropped from photographs go back into them: `result.paste_back()`.
"""

from __future__ import annotations

import dataclasses
import html
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyfacelat.edits.sheets import render, sheet
from pyfacelat.errors import ConfigError
from pyfacelat.files import write_atomically
from pyfacelat.images import data_url, from_uint8, read_images, save_png
from pyfacelat.latents import save_latents
from pyfacelat.projection import ProjectionConfig, ProjectionResult, Projector, make_config
from pyfacelat.projection.config import Stage, check_choice

__all__ = ["RECIPES", "SwapResult", "SwapTable", "Swapper", "recipe", "swap"]

Pictures = np.ndarray[Any, Any]

RECIPES = ("default", "published")

_PUBLISHED = Stage(
    "swap",
    100,
    {"perceptual": 1.0, "ms_ssim": 0.5, "identity": 1.5},
    learning_rate=0.01,
    latent_noise=0.0,
)
_DEFAULT = Stage(
    "swap",
    100,
    {
        "perceptual": 1.0,
        "ms_ssim": 0.5,
        "identity": 2.0,
        "landmark": 0.5,
        "prior": 0.05,
        "spread": 0.3,
    },
    learning_rate=0.05,
    latent_noise=0.0,
)


def recipe(name: str = "default", *, steps: int | None = None) -> ProjectionConfig:
    """What a swap does, as a projection's configuration; see the module for the names."""
    check_choice("recipe", name, RECIPES)
    published = name == "published"
    stage = _PUBLISHED if published else _DEFAULT
    config = dataclasses.replace(
        make_config("balanced"),
        preset=f"swap-{name}",
        stages=(stage,),
        motion_rank=0,
        shape="take",
        coordinates="raw" if published else "whitened",
    )
    return make_config(config, steps=steps)


@dataclasses.dataclass
class SwapResult:
    """N swapped faces.

    Attributes:
        projection: images, latents, files, and the way back into photographs.
        to_person: cosine of each image's identity with the person's, [N].
        to_person_before: the same of where it started, the encoder's image of the look.
        to_look: cosine with whoever is in the look, [N].
    """

    projection: ProjectionResult
    to_person: Tensor
    to_person_before: Tensor
    to_look: Tensor

    @property
    def images(self) -> Pictures:
        """uint8 [N,R,R,3]."""
        return self.projection.images

    def likeness(self, index: int = 0) -> dict[str, float]:
        """The three cosines of one image."""
        return {
            "to_person": round(float(self.to_person[index]), 4),
            "to_person_before": round(float(self.to_person_before[index]), 4),
            "to_look": round(float(self.to_look[index]), 4),
        }


class Swapper:
    """Networks that swap many faces.

    Args:
        network: as `pyfacelat.project`.
        recipe: "default" or "published".
        steps: of the optimisation; None takes the recipe's 100.
        settings: further keywords of `pyfacelat.Projector`: `identity` (a face recognition network,
            such as ArcFace's IR-50 on aligned crops of 112 px; "auto" is the sample models' own for
            the sample network), `encoder` (without one, other networks start at the mean),
            `loss_weights`, `align`, `face`, `detector`, `device` and so on.

    Raises:
        As `pyfacelat.project`; ConfigError also where the identity term is switched off.
    """

    def __init__(
        self,
        network: Any = "sample",
        *,
        recipe: str = "default",
        steps: int | None = None,
        **settings: Any,
    ) -> None:
        config = _recipe(recipe, steps=steps)
        self.projector = Projector(network, preset=config, **settings)
        if self.projector.identity is None:
            raise ConfigError("loss_weights: a swap needs the identity term, got weight 0")
        self.identity = self.projector.identity

    def swap(self, look: Any, person: Any, **run: Any) -> SwapResult:
        """Put persons into looks.

        Args:
            look: one picture or several, as `pyfacelat.project`.
            person: one for all, or as many as looks.
            run: `outdir`, `resume`, `callback`, `progress` of `Projector.project`.

        Raises:
            As `pyfacelat.project`.
        """
        result = self.projector.project(look, person=person, **run)
        person_images = result.person
        assert person_images is not None
        person_faces = self.embed(person_images)
        return SwapResult(
            result,
            (self.embed(result.images) * person_faces).sum(1),
            (self.embed(self._start(result)) * person_faces).sum(1),
            (self.embed(result.images) * self.embed(result.look)).sum(1),
        )

    def table(
        self,
        images: Sequence[Any],
        *,
        names: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> SwapTable:
        """Swap every face with every other.

        Args:
            images: N >= 2 pictures.
            names: of the faces; numbers by default.
            progress: called with (done, N) after each look.

        Raises:
            ConfigError: fewer than two pictures, or another number of names.
            ImageError and others: as `pyfacelat.project`.
        """
        faces = read_images(list(images), name="images")
        if len(faces) < 2 or len(names) not in (0, len(faces)):
            raise ConfigError(
                f"images: expected at least two, and as many names, got {len(faces)}, {len(names)}"
            )
        rows: list[SwapResult] = []
        starts: list[Pictures] = []
        for number, look in enumerate(faces):
            # With itself as well: the optimised face of the comparison.
            rows.append(self.swap([look] * len(faces), faces))
            starts.append(self._start(rows[-1].projection)[0])
            if progress is not None:
                progress(number + 1, len(faces))
        return SwapTable(
            names=list(names) or [str(number) for number in range(len(faces))],
            originals=np.stack([row.projection.look[0] for row in rows]),
            encoded=np.stack(starts),
            images=np.stack([row.images for row in rows]),
            ws=torch.stack([row.projection.ws for row in rows]),
            to_person=torch.stack([row.to_person for row in rows]),
            to_person_before=torch.stack([row.to_person_before for row in rows]),
            to_look=torch.stack([row.to_look for row in rows]),
        )

    @torch.no_grad()
    def embed(self, images: Pictures) -> Tensor:
        """Unit vectors of who is in images uint8 [N,R,R,3]; [N,E] on the CPU."""
        like = next(self.projector.generator.parameters())
        batch = torch.stack([from_uint8(image) for image in images]).to(like)
        return torch.cat([self.identity.embed(image[None]) for image in batch]).float().cpu()

    def _start(self, result: ProjectionResult) -> Pictures:
        """What the optimisation began with, uint8 [N,R,R,3]."""
        assert result.start is not None
        return render(self.projector.generator, result.start)


# The argument of that name hides the function.
_recipe = recipe


def swap(
    look: Any,
    person: Any,
    *,
    network: Any = "sample",
    recipe: str = "default",
    steps: int | None = None,
    outdir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    **settings: Any,
) -> SwapResult:
    """Put one face into the picture of another, once; see `Swapper` and `Swapper.swap`."""
    swapper = Swapper(network, recipe=recipe, steps=steps, **settings)
    return swapper.swap(look, person, outdir=outdir, progress=progress)


@dataclasses.dataclass
class SwapTable:
    """Every face in every picture.

    Attributes:
        names: of the N faces.
        originals: uint8 [N,R,R,3].
        encoded: what the encoder makes of them.
        images: [N,N,R,R,3]: row i is picture i, column j has the identity of face j; where both are
            one, the face optimised towards itself.
        ws: latents of `images`, [N,N,num_ws,w_dim].
        to_person, to_person_before, to_look: cosines as in `SwapResult`, [N,N].
    """

    names: list[str]
    originals: Pictures
    encoded: Pictures
    images: Pictures
    ws: Tensor
    to_person: Tensor
    to_person_before: Tensor
    to_look: Tensor

    def cells(self) -> list[list[Pictures]]:
        """The N x N tiles of the table, the originals themselves on its diagonal."""
        return [
            [self.originals[i] if i == k else self.images[i, k] for k in range(len(self.names))]
            for i in range(len(self.names))
        ]

    def sheet(self) -> Pictures:
        """The table with whoever is put in above and the pictures on the left."""
        header: list[Pictures | None] = [None, *self.originals]
        rows = [[self.originals[i], *row] for i, row in enumerate(self.cells())]
        return sheet([header, *rows], captions=["picture", *self.names])

    def comparison(self) -> Pictures:
        """Originals, what the encoder makes of them, and that optimised; a row each."""
        optimised = [self.images[i, i] for i in range(len(self.names))]
        rows = [list(self.originals), list(self.encoded), optimised]
        return sheet(rows, captions=self.names, labels=["original", "encoder", "optimised"])

    def summary(self) -> dict[str, Any]:
        """Names and cosines as JSON values."""
        tables = {
            name: [[round(value, 4) for value in row] for row in getattr(self, name).tolist()]
            for name in ("to_person", "to_person_before", "to_look")
        }
        return {"names": self.names, **tables}

    def html(self) -> str:
        """A page with the tiles and, under each, how alike it is to its person and its look."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.names)
        body = []
        for i, row in enumerate(self.cells()):
            tiles = []
            for k, tile in enumerate(row):
                told = "original" if i == k else self._told(i, k)
                tiles.append(
                    f'<td><img src="{data_url(Image.fromarray(tile))}" alt=""><br>{told}</td>'
                )
            body.append(f"<tr><th>{html.escape(self.names[i])}</th>{''.join(tiles)}</tr>")
        return _PAGE.format(head=head, body="\n".join(body))

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write table.png, comparison.png, table.json, table.html, swapped_w.npz and each tile."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_latents(folder / "swapped_w.npz", self.ws.flatten(0, 1))
        for i, row in enumerate(self.cells()):
            for k, tile in enumerate(row):
                save_png(folder / f"{i:03d}_{k:03d}.png", tile)
        save_png(folder / "table.png", self.sheet())
        save_png(folder / "comparison.png", self.comparison())
        write_atomically(folder / "table.json", json.dumps(self.summary(), indent=1).encode())
        write_atomically(folder / "table.html", self.html().encode())
        return folder

    def _told(self, i: int, k: int) -> str:
        before, after = float(self.to_person_before[i, k]), float(self.to_person[i, k])
        return f"is {after:.2f} (was {before:.2f}) like {html.escape(self.names[k])}"


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Face swap</title>
<style>body{{font:14px sans-serif;margin:2em}}td,th{{padding:4px;text-align:center}}
img{{width:160px}}caption{{text-align:left;padding-bottom:1em}}</style>
<table><caption>Rows: the picture. Columns: who is put into it. Numbers: cosine of the identity
network, 1 is the same person.</caption>
<tr><th></th>{head}</tr>
{body}
</table></html>
"""
