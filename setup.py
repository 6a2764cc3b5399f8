"""Builds pyfacelat: Python files by setuptools, compiled files by CMake and ninja.

Environment:
    PYFACELAT_CUDA_ARCHS  compute capabilities, such as "80;90" (the default is in CMakeLists.txt)
    PYFACELAT_FORCE_CPU   1: leave the CUDA kernels out
    PYFACELAT_FORCE_CUDA  1: a build without CUDA kernels is an error
    CUDA_HOME             where the CUDA toolkit is; set, it is the only place looked at
    MAX_JOBS              compilers at a time (default: one a core, 2 GB of free memory each)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zlib
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))
from find_torch import MINIMUM, installed_torch  # noqa: E402

OPS = "_ops.abi3.so"
# One folder per environment and torch: a build never meets another one's cache, or its files.
_KEY = zlib.crc32(f"{sys.prefix} {installed_torch()}".encode())
BUILD = f"build/{sys.implementation.cache_tag}-{_KEY:08x}"


def flag(name: str) -> bool:
    """Whether an environment switch is on."""
    return os.environ.get(name, "0").lower() not in ("", "0", "no", "false", "off")


def find_nvcc() -> str | None:
    """Path of nvcc, or None. CUDA_HOME decides where it is set."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return shutil.which("nvcc", path=str(Path(home) / "bin"))
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def jobs() -> str:
    """Compiler processes at a time: one a core, as long as each has 2 GB of free memory."""
    if os.environ.get("MAX_JOBS"):
        return os.environ["MAX_JOBS"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return str(cores or 1)
    return str(max(1, min(cores or 1, free // 2**31)))


def program(name: str) -> str:
    """Path of a build tool."""
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise SystemExit(f"pyfacelat: {name} not found; run `pip install {name}` and try again")
    return found


class CleanBuildPy(build_py):
    """Starts from an empty folder: a file that is no longer in the sources is not packed."""

    def run(self) -> None:
        """Collect the Python files."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "pyfacelat", ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Runs CMake once; it writes both compiled files beside the package's Python files."""

    def build_extension(self, ext: Extension) -> None:
        """Configure and build `_ops` and `_native`."""
        import pybind11

        torch = installed_torch()
        if torch is None:
            raise SystemExit(
                f"pyfacelat: no torch >= {MINIMUM[0]}.{MINIMUM[1]} found to build with"
            )
        nvcc = None if flag("PYFACELAT_FORCE_CPU") else find_nvcc()
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = ROOT / BUILD / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        output.mkdir(parents=True, exist_ok=True)
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": program("ninja"),
            "PYFACELAT_OUTPUT": str(output),
            "PYFACELAT_TORCH": str(torch),
            "PYFACELAT_NVCC": nvcc or "",
            "PYFACELAT_FORCE_CPU": int(flag("PYFACELAT_FORCE_CPU")),
            "PYFACELAT_FORCE_CUDA": int(flag("PYFACELAT_FORCE_CUDA")),
            "PYFACELAT_CUDA_ARCHS": os.environ.get("PYFACELAT_CUDA_ARCHS", ""),
            "PYFACELAT_PYTHON_INCLUDE": sysconfig.get_path("include"),
            "PYFACELAT_PYBIND11_INCLUDE": pybind11.get_include(),
            "PYFACELAT_EXT_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX"),
        }
        cmake = program("cmake")
        defines = [f"-D{name}={value}" for name, value in options.items()]
        configure = [
            cmake,
            "--no-warn-unused-cli",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            "-G",
            "Ninja",
            *defines,
        ]
        for command in (configure, [cmake, "--build", str(build), "--parallel", jobs()]):
            if subprocess.run(command).returncode:
                raise SystemExit(f"pyfacelat: this build step failed: {' '.join(command)}")

    def copy_extensions_to_source(self) -> None:
        """Copy both files beside the sources (editable installs, `--inplace`)."""
        super().copy_extensions_to_source()
        target = ROOT / "pyfacelat" / OPS
        # A rename, so that a process which has the old file open keeps it.
        shutil.copy2(Path(self.build_lib) / "pyfacelat" / OPS, f"{target}.new")
        Path(f"{target}.new").replace(target)


packages = find_packages(str(ROOT), include=["pyfacelat", "pyfacelat.*"])
setup(
    packages=[*packages, "pyfacelat.kernels"],
    package_dir={"pyfacelat.kernels": "kernels"},
    ext_modules=[Extension("pyfacelat._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": CleanBuildPy},
    options={"build": {"build_base": BUILD}},
    zip_safe=False,
)
