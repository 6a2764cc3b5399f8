"""Nowhere in the package is a call that could run what a file says."""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path

import pytest

import pyfacelat

PACKAGE = Path(pyfacelat.__file__).parent

# Calls by their dotted name, with wildcards.
FORBIDDEN = (
    "torch.jit.*", "torch.hub.load*", "torch.package.*", "torch.compiler.load_cache_artifacts",
    "torch.utils.cpp_extension.*", "torch.export.load", "torch.serialization.*",
    "pickle.*", "dill.*", "joblib.*", "marshal.*", "yaml.*", "ast.literal_eval", "np.fromregex",
    "np.genfromtxt", "np.ctypeslib.*", "np.lib.format.read_*", "scipy.io.*", "pd.*",
    "os.system", "os.popen", "os.exec*", "os.spawn*", "os.posix_spawn*", "subprocess.*",
    "eval", "exec", "compile", "__import__", "breakpoint", "input", "runpy.*", "code.*",
    "importlib.util.spec_from*", "importlib.util.module_from_spec", "importlib.machinery.*",
    "types.FunctionType", "types.CodeType", "shutil.unpack_archive", "tarfile.*", "imageio.*",
    "cv2.*", "Image.register_*", "ImageFile.Parser", "logging.config.*",
    "multiprocessing.connection.*", "xml.*", "h5py.*", "tf.*",
    # Whatever the object: members leave an archive, classes are looked up, modules are built.
    "*.extractall", "*.extract", "*.find_class", "*.run_module", "*.exec_module",
)  # fmt: skip
MODULES = {
    "pickle", "_pickle", "dill", "marshal", "shelve", "joblib", "cloudpickle", "yaml", "ruamel",
    "tarfile", "runpy", "imp", "pandas", "h5py", "tensorflow", "imageio", "cv2", "chumpy", "xml",
    "dnnlib", "torch_utils", "pickletools", "code", "codeop",
}  # fmt: skip

# Calls that open what others may have written, the files that may make them, and keywords without
# which they may not. Everybody else goes through these files.
READERS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    # The state of a training run of our own, never weights from elsewhere.
    "torch.load": (("training/",), {"weights_only": True}),
    "np.load": (("training/",), {}),
    "np.memmap": (("training/",), {}),
    "zipfile.ZipFile": (("checkpoints/arrays.py",), {}),
    "safetensors.torch.load": (("projection/outdir.py",), {}),
    "load_file": (("training/",), {}),
    "safe_open": (("training/",), {}),
    # PIL tries every format it knows, unless it is told.
    "Image.open": (("images.py",), {"formats": ...}),
    # A model may name other files to read its weights from.
    "onnx.load": (("export/",), {"load_external_data": False}),
    "onnx.load_model": ((), {}),
    "*.InferenceSession": (("export/",), {}),
    "*.deserialize_cuda_engine": (("export/tensorrt.py",), {}),
    "av.open": (("video.py", "facespace/frames.py"), {}),
    # The package's own library, and the C library of the process, for its allocator.
    "ctypes.CDLL": (("_extension.py", "projection/memory.py"), {}),
    "torch.ops.load_library": (("_extension.py",), {}),
    "importlib.import_module": (
        (
            "pyfacelat/__init__.py",
            "projection/landmark_term.py",
            "export/packages.py",
            "ops/_library.py",
        ),
        {},
    ),
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def allowed(path: Path, name: str, keywords: dict[str | None, ast.expr]) -> bool:
    """Whether a file may make a call."""
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in FORBIDDEN):
        return False
    for pattern, (files, needed) in READERS.items():
        if fnmatch.fnmatchcase(name, pattern):
            if not any(f"/{part}" in path.as_posix() for part in files):
                return False
            for key, value in needed.items():
                found = keywords.get(key)
                constant = isinstance(found, ast.Constant) and found.value is value
                if found is None or not (constant or value is ...):
                    return False
    pickles = keywords.get("allow_pickle")
    return pickles is None or (isinstance(pickles, ast.Constant) and pickles.value is False)


def complaints(path: Path) -> list[str]:
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        place = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if not allowed(path, name, {k.arg: k.value for k in node.keywords}):
                out.append(f"{place}: {name}")
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else []
            # A reader by another name would not be seen above.
            readers = {f"{node.module}.{a.name}" for a in node.names}
            hidden = {"torch.load", "numpy.load", "zipfile.ZipFile", "onnx.load", "PIL.Image.open"}
            out += [f"{place}: from {name}" for name in readers & hidden]
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
        "from torch import load",
        "from numpy import load",
        "import yaml",
        "import tarfile",
        "torch.load(f)",
        "torch.load(f, weights_only=True)",
        "torch.jit.load(f)",
        "torch.hub.load(f)",
        "torch.package.PackageImporter(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag())",
        "np.lib.format.read_array(f, allow_pickle=True)",
        "onnx.load(f)",
        "onnx.load(f, load_external_data=False)",
        "ort.InferenceSession(f)",
        "Image.open(f)",
        "Image.open(f, formats=FORMATS)",
        "imageio.imread(f)",
        "zipfile.ZipFile(f)",
        "archive.extractall(f)",
        "joblib.load(f)",
        "yaml.safe_load(f)",
        "ctypes.CDLL(f)",
        "importlib.import_module(x)",
        "eval(x)",
        "exec(x)",
    ],
)
def test_the_check_finds_what_it_looks_for(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(f"def f(x):\n    {line}\n")
    assert complaints(tmp_path / "x.py")
    (tmp_path / "x.py").write_text("net.eval()\nre.compile(x)\nread(path)\n")
    assert not complaints(tmp_path / "x.py")


@pytest.mark.parametrize(
    "file, good, bad",
    [
        ("training/x.py", "torch.load(f, weights_only=True)", "torch.load(f)"),
        ("training/x.py", "np.load(f)", "np.load(f, allow_pickle=True)"),
        ("images.py", "Image.open(f, formats=FORMATS)", "Image.open(f)"),
        ("export/x.py", "onnx.load(f, load_external_data=False)", "onnx.load(f)"),
    ],
)
def test_who_may_read_may_not_read_just_anything(
    file: str, good: str, bad: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(good)
    assert not complaints(path)
    path.write_text(bad)
    assert complaints(path)
