"""The names and signatures that users rely on, and what importing the package costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import pyfacelat

NAMES = [
    "CheckpointError",
    "DeviceError",
    "FacelatError",
    "ImageError",
    "LandmarkError",
    "MissingWeightsError",
    "NoFaceError",
    "NonFiniteError",
    "OutdirBusyError",
    "ProjectionResult",
    "Projector",
    "__version__",
    "align",
    "animate",
    "backend_report",
    "detect_landmarks",
    "encode",
    "load_generator",
    "load_image",
    "project",
]
KEYWORDS = {
    "space": "w+",
    "preset": "balanced",
    "steps": None,
    "perceptual": "auto",
    "landmarker": "auto",
    "loss_weights": None,
    "group_weights": None,
    "init": "auto",
    "encoder": "auto",
    "align": "auto",
    "face": "largest",
    "seed": 303,
    "device": "auto",
    "dtype": "auto",
    "graph": "auto",
    "landmark_backend": "torch",
    "pose": None,
    "shape": None,
    "perceptual_mask": None,
    "identity": "auto",
    "discriminator": "auto",
    "detector": "auto",
}
RUN_KEYWORDS = {
    "person": None,
    "outdir": None,
    "resume": False,
    "callback": None,
    "progress": False,
}
HEAVY = (
    "onnxruntime",
    "tensorrt",
    "triton",
    "av",
    "matplotlib",
    "face_alignment",
    "lpips",
    "torchvision",
    "sklearn",
    "typer",
    "rich",
)


def keywords(function: object) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def positionals(function: object) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}


def test_names_are_pinned() -> None:
    assert sorted(pyfacelat.__all__) == NAMES
    assert len(pyfacelat.__all__) <= 20


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves(name: str) -> None:
    assert getattr(pyfacelat, name) is not None
    assert name in dir(pyfacelat)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'projekt'"):
        _ = pyfacelat.projekt


def test_project() -> None:
    empty = inspect.Parameter.empty
    assert positionals(pyfacelat.project) == {"look": empty, "landmarks": None}
    assert keywords(pyfacelat.project) == {"network": "sample", **KEYWORDS, **RUN_KEYWORDS}


def test_animate() -> None:
    empty = inspect.Parameter.empty
    assert positionals(pyfacelat.animate) == {"look": empty, "driving": empty}
    own = {
        "mode": "joint",
        "frame_steps": None,
        "keyframe_every": 6,
        "batch": 64,
        "midpoints": False,
        "track_sigma": 0.0,
        "fps": None,
    }
    run = {name: default for name, default in RUN_KEYWORDS.items() if name != "person"}
    assert keywords(pyfacelat.animate) == {"network": "sample", **KEYWORDS, **run, **own}


def test_projector() -> None:
    empty = inspect.Parameter.empty
    assert positionals(pyfacelat.Projector) == {"network": empty} or positionals(
        pyfacelat.Projector
    ) == {"network": "sample"}
    # What builds the projector is given to it; what concerns one run may be given to either.
    assert {**KEYWORDS, **keywords(pyfacelat.Projector)} == {
        **KEYWORDS,
        **{k: v for k, v in RUN_KEYWORDS.items() if k in keywords(pyfacelat.Projector)},
    }
    assert list(positionals(pyfacelat.Projector.project))[1:] == ["look", "landmarks"]


def test_loaders() -> None:
    empty = inspect.Parameter.empty
    assert positionals(pyfacelat.load_generator) == {"path_or_name": empty}
    assert keywords(pyfacelat.load_generator) == {"device": "cpu", "dtype": None}
    assert positionals(pyfacelat.load_image) == {"source": empty}
    assert keywords(pyfacelat.load_image) == {"size": None}


def test_errors_are_also_what_a_caller_expects() -> None:
    assert issubclass(pyfacelat.CheckpointError, ValueError)
    assert issubclass(pyfacelat.OutdirBusyError, OSError)
    assert issubclass(pyfacelat.DeviceError, RuntimeError)
    for name in NAMES:
        if name.endswith("Error"):
            assert issubclass(getattr(pyfacelat, name), pyfacelat.FacelatError)


SCRIPT = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()
import pyfacelat
package = time.process_time() - start
pyfacelat.project, pyfacelat.load_generator, pyfacelat.load_image, pyfacelat.backend_report
everything = time.process_time() - start
print(json.dumps([package, everything, sorted(set(sys.modules) - before)]))
"""


def test_import_is_light() -> None:
    """Under a second beyond torch (in CPU time: machines are shared), and no heavy company."""
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    package, everything, loaded = json.loads(answer.stdout)
    assert package < 0.2
    assert everything < 1.0
    heavy = sorted({name.split(".")[0] for name in loaded} & set(HEAVY))
    assert not heavy, f"import pyfacelat imports {heavy}"
