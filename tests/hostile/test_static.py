"""Nowhere in the package is a call that could run what a file says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pyfacelat

PACKAGE = Path(pyfacelat.__file__).parent

# Calls by the last parts of their dotted name.
FORBIDDEN = {
    "torch.jit.load",
    "torch.hub.load",
    "torch.compiler.load_cache_artifacts",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "dill.load",
    "joblib.load",
    "marshal.loads",
    "yaml.load",
    "os.system",
    "eval",
    "exec",
    "compile",
    "__import__",
}
MODULES = {"pickle", "_pickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def complaints(path: Path) -> list[str]:
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        place = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            keywords = {k.arg: k.value for k in node.keywords}
            if name in FORBIDDEN:
                out.append(f"{place}: {name}")
            if name == "torch.load":
                # For state that a run of ours wrote (training); never for weights from elsewhere.
                only = keywords.get("weights_only")
                safe = isinstance(only, ast.Constant) and only.value is True
                if not safe or "training" not in path.parts:
                    out.append(f"{place}: torch.load")
            allowed = keywords.get("allow_pickle")
            constant = isinstance(allowed, ast.Constant)
            if allowed is not None and not (constant and allowed.value is False):
                out.append(f"{place}: allow_pickle")
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        out += [f"{place}: imports {n}" for n in names if n.split(".")[0] in MODULES]
    return out


def test_the_package_never_unpickles() -> None:
    found = [text for path in PACKAGE.rglob("*.py") for text in complaints(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=True)",
        "torch.jit.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag())",
        "eval(x)",
        "exec(x)",
    ],
)
def test_the_check_finds_what_it_looks_for(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(f"def f(x):\n    {line}\n")
    assert complaints(tmp_path / "x.py")
    (tmp_path / "x.py").write_text("np.load(f, allow_pickle=False)\nnet.eval()\nre.compile(x)\n")
    assert not complaints(tmp_path / "x.py")
