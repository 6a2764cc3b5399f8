"""PEP 517 backend: setuptools, plus build requirements that depend on what is already installed.

torch is requested only where none of a sufficient version is found, so that `pip install .` neither
downloads a second torch nor compiles against a different one. cmake is requested only where the
system has none that is new enough.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

from find_torch import MINIMUM, installed_torch
from setuptools import build_meta as _setuptools
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

CMAKE_MINIMUM = (3, 18)


def _system_cmake_is_new_enough() -> bool:
    cmake = shutil.which("cmake")
    if cmake is None:
        return False
    try:
        answer = subprocess.run([cmake, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    match = re.search(r"version (\d+)\.(\d+)", answer.stdout)
    return match is not None and (int(match[1]), int(match[2])) >= CMAKE_MINIMUM


def _requirements() -> list[str]:
    needs = ["ninja", "pybind11>=2.12"]
    if not _system_cmake_is_new_enough():
        needs.append(f"cmake>={CMAKE_MINIMUM[0]}.{CMAKE_MINIMUM[1]}")
    if installed_torch() is None:
        needs.append(f"torch>={MINIMUM[0]}.{MINIMUM[1]}")
    return needs


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Requirements of a wheel build on this machine."""
    return [*_setuptools.get_requires_for_build_wheel(config_settings), *_requirements()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Requirements of an editable build on this machine."""
    return [*_setuptools.get_requires_for_build_editable(config_settings), *_requirements()]
