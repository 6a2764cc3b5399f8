"""The build: what it asks for, what it refuses, and what the op library depends on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyfacelat import _extension, _native
from pyfacelat.version import __version__

ROOT = Path(__file__).resolve().parents[1]
INFO_KEYS = {
    "version",
    "git",
    "cuda_archs",
    "cuda_toolkit",
    "no_cuda_reason",
    "compiler",
    "flags",
    "torch_headers",
}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "build_backend"))
    import pyfacelat_build

    return pyfacelat_build


def test_an_installed_torch_is_found_and_not_requested(backend: object) -> None:
    import find_torch
    import torch

    assert find_torch.installed_torch() == Path(torch.__file__).parent
    needs = backend.get_requires_for_build_wheel()
    assert not [need for need in needs if need.startswith("torch")]
    assert {"ninja"} <= set(needs)


def test_torch_is_requested_where_there_is_none_new_enough(
    backend: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import find_torch

    old = tmp_path / "torch"
    (old / "include/torch/csrc/stable").mkdir(parents=True)
    (old / "include/torch/csrc/stable/library.h").touch()
    (old / "version.py").write_text("__version__ = '2.9.1+cpu'\n")
    monkeypatch.setattr(find_torch, "_site_folders", lambda: [tmp_path])
    monkeypatch.setattr(find_torch.importlib.util, "find_spec", lambda name: None)
    assert find_torch.torch_version(old) == (2, 9)
    assert find_torch.installed_torch() is None
    assert "torch>=2.10" in backend.get_requires_for_build_wheel()
    (old / "version.py").write_text("__version__ = '2.10.0'\n")
    assert find_torch.installed_torch() == old


def test_cmake_is_requested_where_the_system_has_none(
    backend: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_system_cmake_is_new_enough", lambda: False)
    assert "cmake>=3.18" in backend.get_requires_for_build_editable()


def configure(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run CMake's configure step alone, as setup.py would."""
    import pybind11
    import torch

    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake, ninja = (shutil.which(tool, path=folders) for tool in ("cmake", "ninja"))
    assert cmake and ninja, "the test extra brings both"
    options = {
        "PYFACELAT_OUTPUT": str(folder / "out"),
        "PYFACELAT_TORCH": str(Path(torch.__file__).parent),
        "PYFACELAT_PYTHON_INCLUDE": "unused",
        "PYFACELAT_PYBIND11_INCLUDE": pybind11.get_include(),
        "PYFACELAT_EXT_SUFFIX": ".so",
        **settings,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    defines.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
    command = [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *defines]
    return subprocess.run(command, capture_output=True, text=True)


def test_without_nvcc_the_build_goes_on_and_says_so_in_one_line(tmp_path: Path) -> None:
    answer = configure(tmp_path, PYFACELAT_NVCC="")
    assert answer.returncode == 0, answer.stderr
    lines = [line for line in answer.stdout.splitlines() if "without CUDA kernels" in line]
    assert len(lines) == 1 and "nvcc not found" in lines[0]


def test_an_nvcc_that_does_not_work_is_no_failure_either(tmp_path: Path) -> None:
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\necho 'unsupported GNU version' >&2\nexit 1\n")
    broken.chmod(0o755)
    answer = configure(tmp_path / "build", PYFACELAT_NVCC=str(broken), PYFACELAT_CUDA_ARCHS="90")
    assert answer.returncode == 0, answer.stderr
    assert "unsupported GNU version" in answer.stdout


def test_a_forced_cuda_build_without_nvcc_is_an_error(tmp_path: Path) -> None:
    answer = configure(tmp_path, PYFACELAT_NVCC="", PYFACELAT_FORCE_CUDA="1")
    assert answer.returncode != 0
    assert "PYFACELAT_FORCE_CUDA is set, but nvcc not found" in re.sub(r"\s+", " ", answer.stderr)


def test_an_architecture_that_nvcc_does_not_know_is_an_error(tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho compute_80\necho compute_90\n")
    nvcc.chmod(0o755)
    answer = configure(tmp_path / "build", PYFACELAT_NVCC=str(nvcc), PYFACELAT_CUDA_ARCHS="80;91")
    assert answer.returncode != 0
    assert "( 80 90 ), got '91'" in re.sub(r"\s+", " ", answer.stderr)


def test_both_files_say_what_they_were_built_from() -> None:
    ops, native = _extension.build_info(), _native.build_info()
    assert set(ops) == set(native) == INFO_KEYS
    assert ops["version"] == native["version"] == __version__
    assert "-O3" in ops["flags"]
    assert bool(ops["cuda_archs"]) != bool(ops["no_cuda_reason"])


def test_the_op_library_needs_nothing_that_a_cpu_torch_lacks() -> None:
    """One file for CPU and CUDA torch: no CUDA library, and no Python, among what it links to."""
    answer = subprocess.run(
        ["objdump", "-p", str(_extension.LIBRARY)], capture_output=True, text=True, check=True
    )
    needed = set(re.findall(r"NEEDED\s+(\S+)", answer.stdout))
    system = {
        "libstdc++",
        "libm",
        "libgcc_s",
        "libc",
        "libdl",
        "libpthread",
        "librt",
        "ld-linux-x86-64",
    }
    assert {name.split(".so")[0] for name in needed} <= system | {"libtorch_cpu"}
    assert "libtorch_cpu.so" in needed
    assert "RUNPATH" not in answer.stdout and "RPATH" not in answer.stdout


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the environment is read at import."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


REPORT = "import pyfacelat; print(sorted({r['used'] for r in pyfacelat.backend_report()}))"


def test_reference_mode_runs_the_reference_only() -> None:
    code = f"{REPORT}; from pyfacelat import _extension; print(_extension.load())"
    answer = run(code, PYFACELAT_BACKEND="reference")
    assert answer.stdout.splitlines()[0] == "['reference']", answer.stderr
    assert "unloaded" in answer.stdout


def test_an_unknown_backend_name_is_refused_at_once() -> None:
    answer = run("import pyfacelat.ops", PYFACELAT_BACKEND="cudnn")
    assert answer.returncode != 0
    assert "expected one of auto, reference, cpp, cuda, triton, got 'cudnn'" in answer.stderr
