"""The import table: a file imports only lower floors, or files of its own part.

Read with `ast`, so imports inside functions count as well. `if TYPE_CHECKING:` blocks do not: they
never run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"kernels", "_native", "version"},
    {
        "errors",
        "files",
        "download",
        "_extension",
        "ops",
        "images",
        "latents",
        "checkpoints",
        "edits",
        "video",
    },  # fmt: skip
    {"nets", "procface"},
    {"weights", "zoo", "faces", "losses", "photographs"},
    {"projection", "encoding"},
    {"swap", "facespace", "animation", "training", "export", "expgan"},
    {"__init__", "__main__", "cli", "gallery"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# errors and files are below the rest of their floor: every file may raise and write.
EVERYWHERE = {"errors", "files", "version"}
# Steps inside a floor, one way only: latents come in the same containers as networks. `zoo` builds
# perceptual losses from files, and a landmark loss is made of heat maps and groups. Edits read
# latents and show images. Floor 6 is a front end throughout.
WITHIN_A_FLOOR = {
    ("ops", "_extension"),
    ("latents", "checkpoints"),
    ("losses", "faces"),
    ("edits", "images"),
    ("edits", "latents"),
    ("zoo", "weights"),
    ("zoo", "losses"),
    ("zoo", "faces"),
    ("photographs", "faces"),
    ("photographs", "losses"),
    ("photographs", "zoo"),
    ("encoding", "projection"),
    ("__main__", "cli"),
    ("cli", "__init__"),
    ("cli", "gallery"),
}
# The one step up, late and by name: the landmark term may be computed by an exported network, and
# exporting needs what lies above. Nothing of it is loaded unless it is asked for.
LATE = {("projection", "export")}
# faces/detect.py adapts face_alignment's detector, and edits/boundaries.py fits with scikit-learn,
# each inside a function.
_ADAPTERS = {("faces", "face_alignment"), ("edits", "sklearn")}
# Oracles in tests and optional companions.
FOREIGN_ABOVE_4 = {"lpips", "face_alignment", "sklearn", "onnxruntime", "tensorrt"}


def sources() -> list[Path]:
    return sorted([*(ROOT / "pyfacelat").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])


def module_of(file: Path) -> tuple[str, ...]:
    """Dotted name of a source file as a tuple; `kernels/x.py` is pyfacelat.kernels.x."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ("pyfacelat", *parts) if parts[0] == "kernels" else parts


def part_of(module: tuple[str, ...]) -> str:
    """The part of the package that a module belongs to: the name the table knows."""
    return module[1] if len(module) > 1 else "__init__"


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not _is_type_checking(child):
            yield child
            yield from _walk(child)


def imports(file: Path, text: str | None = None) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name) of every import, relative ones resolved, late ones by name included."""
    module = module_of(file)
    package = module[:-1]
    for node in _walk(ast.parse(text if text is not None else file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module.split(".") if node.module else ()))
            if target == ("pyfacelat",):
                for alias in node.names:
                    yield node.lineno, ("pyfacelat", alias.name)
            else:
                yield node.lineno, target
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A module's name in quotes is an import by importlib.
            if re.fullmatch(r"pyfacelat(\.\w+)+", node.value):
                yield node.lineno, tuple(node.value.split("."))


def complaint(file: Path, target: tuple[str, ...]) -> str:
    """Why this file may not import `target`; "" where it may."""
    part = part_of(module_of(file))
    floor = FLOOR.get(part)
    if floor is None:
        return f"part {part!r} is not in the table"
    if target[0] != "pyfacelat":
        if target[0] in FOREIGN_ABOVE_4 and floor < 4 and (part, target[0]) not in _ADAPTERS:
            return f"{target[0]} is not imported below floor 4"
        allowed = {"torch", "triton", *sys.stdlib_module_names}
        if part == "kernels" and target[0] not in allowed:
            return "beside the standard library kernels import torch and triton only"
        return ""
    other = part_of(target)
    if part == "kernels" and other != "kernels":
        return "kernels never import pyfacelat"
    if other == part or other in EVERYWHERE:
        return ""
    if other not in FLOOR:
        # A public name, resolved by pyfacelat/__init__: that is floor 6.
        return "" if floor == 6 else f"pyfacelat.{other} is resolved on floor 6"
    if other in ("_extension", "kernels") and floor < 6 and part != "ops":
        return f"only ops touches {other}"
    if FLOOR[other] < floor or (part, other) in WITHIN_A_FLOOR | LATE:
        return ""
    return f"{part} is floor {floor}, {other} is floor {FLOOR[other]}"


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {'.'.join(target)}: {why}"
        for line, target in imports(file)
        if (why := complaint(file, target))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "line", "allowed"),
    [
        ("pyfacelat/nets/x.py", "from pyfacelat.ops import bias_act", True),
        ("pyfacelat/nets/x.py", "from .y import z", True),
        ("pyfacelat/nets/x.py", "from ..errors import ImageError", True),
        ("pyfacelat/nets/x.py", "from ..zoo import load_generator", False),
        ("pyfacelat/nets/x.py", "def f():\n    import pyfacelat.zoo", False),
        ("pyfacelat/nets/x.py", "from pyfacelat import zoo", False),
        ("pyfacelat/nets/x.py", "from pyfacelat import project", False),
        ("pyfacelat/nets/x.py", "from pyfacelat._extension import call", False),
        ("pyfacelat/ops/x.py", "from pyfacelat._extension import call", True),
        ("pyfacelat/checkpoints/x.py", "from pyfacelat.ops import bias_act", False),
        ("pyfacelat/losses/x.py", "import lpips", False),
        ("pyfacelat/losses/x.py", "from pyfacelat.faces.groups import GROUPS", True),
        ("pyfacelat/faces/x.py", "from pyfacelat.losses import landmark", False),
        ("pyfacelat/training/x.py", "import pyfacelat.projection", True),
        ("pyfacelat/projection/x.py", "import pyfacelat.training", False),
        ("pyfacelat/projection/x.py", "load('pyfacelat.training.loop')", False),
        ("pyfacelat/projection/x.py", "load('pyfacelat.export.runtime')", True),
        ("pyfacelat/cli/x.py", "from pyfacelat import project", True),
        ("pyfacelat/unheard_of.py", "import torch", False),
        ("kernels/x.py", "import triton.language as tl", True),
        ("kernels/x.py", "from ._launch import launch", True),
        ("kernels/x.py", "import numpy", False),
        ("kernels/x.py", "import pyfacelat.errors", False),
    ],
)
def test_the_table_itself(path: str, line: str, allowed: bool) -> None:
    file = ROOT / path
    complaints = [complaint(file, target) for _, target in imports(file, line)]
    assert all(not why for why in complaints) == allowed


def test_type_checking_blocks_do_not_count() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pyfacelat.cli\n"
    targets = [target for _, target in imports(ROOT / "pyfacelat/nets/x.py", text)]
    assert targets == [("typing",)]
