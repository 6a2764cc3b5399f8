"""`pyfacelat fetch`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyfacelat.cli.options import JsonOption
from pyfacelat.errors import ConfigError, DownloadError

if TYPE_CHECKING:
    from pyfacelat.zoo import WeightFile

SCHEMES = ("https",)
"""What addresses may begin with."""


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="What to fetch; none lists what there is.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder. Default: $PYFACELAT_HOME/weights, where it is looked for."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without an answer.")] = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there and damaged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download weight files of other people's networks, checked by hash."""
    from pyfacelat import zoo

    rows = {row.name: row for row in zoo.known_weights() if row.url}
    if not names and as_json:
        files = [
            {"name": r.name, "bytes": r.size, "found": r.found and str(r.found)}
            for r in rows.values()
        ]
        typer.echo(json.dumps(files))
        return
    if not names:
        for row in rows.values():
            state = f"there: {row.found}" if row.found else "absent"
            typer.echo(f"{row.name:10} {row.size / 1e6:6.0f} MB  {state}")
        return
    for name in names:
        if name not in rows:
            known = ", ".join(rows)
            raise ConfigError(f"fetch: nothing known as {name!r}; there are: {known}")
    folder = to or zoo.weights_dirs()[0]
    for name in names:
        path = fetch_weights(rows[name], folder, timeout=timeout, force=force)
        typer.echo(json.dumps({"name": name, "file": str(path)}) if as_json else str(path))


def fetch_weights(row: WeightFile, folder: Path, *, timeout: float, force: bool) -> Path:
    """Fetch one file into `folder`, unless it is there and right. Returns its path.

    Raises:
        DownloadError: see `download.download`; or a file of that name is there with another hash.
    """
    from pyfacelat.download import digest_of, download

    path = folder / row.file
    if path.exists():
        digest = digest_of(path)
        if digest.startswith(row.sha256):
            return path
        if not force:
            raise DownloadError(
                f"{path}: is there, and its SHA-256 begins with {digest[: len(row.sha256)]}, "
                f"expected {row.sha256}; --force replaces it"
            )
    with _progress(row.name) as progress:
        download(
            row.url,
            path,
            sha256=row.sha256,
            max_bytes=row.max_bytes,
            timeout=timeout,
            schemes=SCHEMES,
            progress=progress,
        )
    return path


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
