"""Weight files that are known by name: what they are, where they are looked for, their digests.

A file is read once; its SHA-256 is compared before it is parsed. Nothing is ever downloaded here.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from pyfacelat.checkpoints import Checkpoint, Source, read_source
from pyfacelat.errors import CheckpointError, MissingWeightsError

__all__ = ["PathLike", "WeightFile", "known_weights", "open_known", "open_weights", "weights_dirs"]

PathLike = str | os.PathLike[str]

_ASSETS = Path(__file__).with_name("assets")
_SLACK = 1.05  # over sizes that are known approximately


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A weight file that is known by name, and where it is.

    Attributes:
        name: what the load functions call it.
        file: file name.
        sha256: digest, or how it begins (as in the file's name); "" for the package's own files.
        size: bytes, approximately.
        searched: every path that is tried, in order.
        found: the first of them that exists, or None.
        how: where the file comes from and where it goes.
        url: where `pyfacelat fetch` gets it, or "".
        max_bytes: more than that it is not, whatever a server says.
    """

    name: str
    file: str
    sha256: str
    size: int
    searched: tuple[Path, ...]
    found: Path | None
    how: str
    url: str = ""
    max_bytes: int = 0


_TORCHVISION = (
    "torchvision's {}, weights IMAGENET1K_V1, which torchvision downloads on its first use"
)
_TORCH_FOLDER = "https://download.pytorch.org/models/"
_FAN_FOLDER = "https://www.adrianbulat.com/downloads/python-fan/"
# name -> (file, sha256 or its beginning, approximate bytes, origin, folder of its address)
_DOWNLOADS = {
    "2dfan4": (
        "2DFAN4-11f355bf06.pth.tar",
        "11f355bf06",
        95_600_000,
        "the landmark network of the face_alignment project (adrianb), which downloads it on its "
        "first use",
        _FAN_FOLDER,
    ),
    "s3fd": (
        "s3fd-619a316812.pth",
        "619a316812",
        89_800_000,
        "the face detector of the face_alignment project (adrianb), which downloads it on its "
        "first use",
        _FAN_FOLDER,
    ),
    "vgg16": (
        "vgg16-397923af.pth",
        "397923af",
        553_400_000,
        _TORCHVISION.format("VGG16"),
        _TORCH_FOLDER,
    ),
    "vgg19": (
        "vgg19-dcbb9e9d.pth",
        "dcbb9e9d",
        574_700_000,
        _TORCHVISION.format("VGG19"),
        _TORCH_FOLDER,
    ),
    "resnet50": (
        "resnet50-0676ba61.pth",
        "0676ba61",
        102_500_000,
        _TORCHVISION.format("ResNet50"),
        _TORCH_FOLDER,
    ),
}
_LPIPS_LINS = (
    "vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    7_289,
)
_SAMPLES = {
    "sample-generator": "generator.safetensors",
    "sample-landmarker": "fan.safetensors",
    "sample-encoder": "encoder.safetensors",
    "sample-identity": "identity.safetensors",
    "sample-motion": "motion.safetensors",
}


def weights_dirs() -> list[Path]:
    """Folders in which weight files are looked for, in order.

    $PYFACELAT_HOME/weights (default ~/.cache/pyfacelat/weights), then torch hub's checkpoints,
    where torchvision and face_alignment keep theirs (TORCH_HOME moves it).
    """
    home = os.environ.get("PYFACELAT_HOME") or Path.home() / ".cache" / "pyfacelat"
    return [Path(home).expanduser() / "weights", Path(torch.hub.get_dir()) / "checkpoints"]


def known_weights() -> list[WeightFile]:
    """Every weight file that is known by name, whether it is there or not."""
    folders = weights_dirs()
    rows = []
    for name, (file, digest, size, origin, folder) in _DOWNLOADS.items():
        how = f"{file} is {origin}; `pyfacelat fetch {name}` gets it, or put it into {folders[0]}"
        row = _row(name, file, digest, size, tuple(d / file for d in folders), how)
        limit = int(size * _SLACK)
        rows.append(dataclasses.replace(row, url=folder + file, max_bytes=limit))
    file, digest, size = _LPIPS_LINS
    # find_spec of a top-level name finds the package without importing it.
    spec = importlib.util.find_spec("lpips")
    places = tuple(
        Path(folder) / "weights" / "v0.1" / file
        for folder in (spec.submodule_search_locations or () if spec else ())
    )
    how = f"weights/v0.1/{file} comes with the lpips package (pip install --no-deps lpips)"
    rows.append(_row("lpips-lins", f"lpips/weights/v0.1/{file}", digest, size, places, how))
    for name, file in _SAMPLES.items():
        how = f"{file} is part of this package; python -m pyfacelat.training.sample_models makes it"
        rows.append(_row(name, file, "", 0, (_ASSETS / file,), how))
    return rows


def _row(
    name: str, file: str, digest: str, size: int, searched: tuple[Path, ...], how: str
) -> WeightFile:
    found = next((path for path in searched if path.is_file()), None)
    if found is not None:
        size = found.stat().st_size
    return WeightFile(name, file, digest, size, searched, found, how)


def open_weights(
    given: PathLike, names: Mapping[str, str], argument: str, part: str = "generator"
) -> Checkpoint:
    """Read a file given by path or by name, and compare its digest if that is known.

    Args:
        given: a path, or one of `names`.
        names: name -> row of `known_weights`.
        argument: what the caller calls `given`, for messages.
        part: which network of a file that holds several.

    Raises:
        CheckpointError: the file is malformed or hostile, or not the one its name says.
        MissingWeightsError: there is no such file or name.
    """
    text = os.fspath(given)
    if text in names:
        return open_known(names[text])
    if not Path(text).exists():
        if Path(text).suffix or os.sep in text:
            raise MissingWeightsError(f"{argument}: there is no file {text}")
        close = difflib.get_close_matches(text.lower(), names, n=1)
        raise MissingWeightsError(
            f"{argument}: {text!r} is neither a file nor a known name"
            + (f"; did you mean {close[0]!r}?" if close else "")
            + (f" Known names: {', '.join(names)}" if names else "")
        )
    known = {row.file: row.sha256 for row in known_weights() if row.sha256}
    return _read_checked(text, known.get(Path(text).name, ""), part)


def open_known(name: str) -> Checkpoint:
    """Read the file of a row of `known_weights`; raises as `open_weights`."""
    row = next(row for row in known_weights() if row.name == name)
    if row.found is None:
        searched = "".join(f"\n  looked for {path}" for path in row.searched)
        raise MissingWeightsError(
            f"{name}: {row.file} is needed and not there. {row.how}.{searched}"
        )
    return _read_checked(os.fspath(row.found), row.sha256)


def _read_checked(path: str, sha256: str, part: str = "generator") -> Checkpoint:
    """Read a file once, compare its digest, and parse the very same bytes."""
    source = Source.open(path)
    if sha256:
        digest = hashlib.sha256(source.data).hexdigest()
        if not digest.startswith(sha256):
            raise CheckpointError(
                path,
                f"its SHA-256 begins with {digest[: len(sha256)]}, expected {sha256}: the file is "
                "damaged or not the one its name says",
            )
    return read_source(source, part=part)
