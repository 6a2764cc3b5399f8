"""Compiles CUDA sources with g++ against the emulation in this folder.

Three kinds of library, from the same sources:

    plain   fast; values under several orders of the threads, eager and lazy asynchronous copies
    race    every access is checked against those of other threads (race.cpp)
    asan    address and undefined-behaviour sanitizers; to be loaded with libasan in LD_PRELOAD

Objects are kept in build/simt, under the hash of everything that went into them.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/simt"
BUILD = ROOT / "build/simt"
VARIANTS = ("plain", "race", "asan")

_RUNTIME = ["runtime.cpp", "fibers.cpp", "order.cpp", "copies.cpp"]
_COMMON = ["-std=c++20", "-fPIC", "-DPYFACELAT_SIMT_HOST", f"-I{ROOT / 'csrc'}", f"-I{HERE}"]
# Device code reinterprets memory freely, and rounds each operation unless it says otherwise.
_KERNEL = [*_COMMON, "-fno-strict-aliasing", "-ffp-contract=off", "-Wall"]
_KERNEL += ["-Wno-unused-parameter", "-Wno-unknown-pragmas"]
_SANITIZER = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_FLAGS = {
    "plain": ["-O2"],
    # The pass puts a call before every access, and -O2 first removes those it can prove away.
    "race": ["-O1", "-g1", "-fsanitize=thread", "-Wno-tsan"],
    "asan": ["-O1", "-g1", *_SANITIZER],
}
_LINK = {"plain": [], "race": [], "asan": _SANITIZER}


def compiler() -> str:
    """Path of g++."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    assert found, "the emulation needs g++ (CI installs it; locally: apt-get install g++)"
    return found


def _with_headers(file: Path, found: set[Path]) -> set[Path]:
    """A source and every file of ours that it includes."""
    found.add(file)
    for name in re.findall(r'^#include "(.+)"$', file.read_text(), re.MULTILINE):
        for folder in (ROOT / "csrc", HERE):
            header = folder / name
            if header.is_file() and header not in found:
                _with_headers(header, found)
    return found


def _run(command: list[str]) -> None:
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, f"{' '.join(command)}\n{answer.stderr}"
    assert "warning:" not in answer.stderr, f"{' '.join(command)}\n{answer.stderr}"


def _object(source: Path, flags: list[str]) -> Path:
    text = b"".join(file.read_bytes() for file in sorted(_with_headers(source, set())))
    key = hashlib.sha256(text + repr((flags, compiler())).encode()).hexdigest()[:16]
    target = BUILD / f"{source.stem}-{key}.o"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        _run([compiler(), *flags, "-x", "c++", "-c", str(source), "-o", str(part)])
        part.replace(target)
    return target


def build(kernels: list[Path], variant: str, torch_sources: list[Path] | None = None) -> Path:
    """A library of CUDA sources.

    Args:
        kernels: `.cu` files.
        variant: one of `VARIANTS`; sanitizers are applied to the kernels only.
        torch_sources: C++ files that register the kernels with torch, and what those need.

    Returns:
        Path of the library, up to date.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:  # pytest-xdist's workers build the same files
        fcntl.flock(lock, fcntl.LOCK_EX)
        runtime = [*_RUNTIME, "race.cpp"] if variant == "race" else _RUNTIME
        objects = [_object(HERE / name, [*_COMMON, "-O2", "-Wall"]) for name in runtime]
        objects += [_object(file, [*_KERNEL, *_FLAGS[variant]]) for file in kernels]
        link = []
        if torch_sources:
            import torch

            home = Path(torch.__file__).parent
            flags = [
                "-O1",
                "-fvisibility=hidden",
                "-DTORCH_TARGET_VERSION=0x020a000000000000",
                "-fno-trapping-math",
            ]
            flags += ["-isystem", str(home / "include")]
            objects += [_object(file, [*_COMMON, *flags]) for file in torch_sources]
            link = [str(home / "lib/libtorch_cpu.so")]
        name = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:16]
        target = BUILD / f"{variant}-{name}.so"
        if not target.exists():
            part = target.with_suffix(f".{os.getpid()}")
            # -Bsymbolic: two of these in one process have each its own threadIdx.
            command = [compiler(), "-shared", "-Wl,-Bsymbolic", *_LINK[variant], *map(str, objects)]
            _run([*command, *link, "-o", str(part)])
            part.replace(target)
        return target


def load(library: Path) -> ctypes.CDLL:
    """The library, with the two functions of the emulation declared."""
    loaded = ctypes.CDLL(str(library))
    loaded.simt_error.restype = ctypes.c_char_p
    return loaded


def sanitizer_environment() -> dict[str, str]:
    """What a process needs to load an "asan" library: Python itself is not built with it."""
    answer = subprocess.run(
        [compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    return {
        **os.environ,
        "LD_PRELOAD": answer.stdout.strip(),
        # Python leaks on purpose.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=0",
    }


def with_lines(message: str, library: Path) -> str:
    """A race's message with source lines in place of the addresses of its two accesses."""

    def line(match: re.Match[str]) -> str:
        # The address is that of the call's return: one byte back is inside the call.
        address = hex(int(match[1], 16) - 1)
        answer = subprocess.run(
            ["addr2line", "-s", "-e", str(library), address], capture_output=True, text=True
        )
        return answer.stdout.strip() or match[0]

    return re.sub(r"\+0x([0-9a-f]+)", line, message)
