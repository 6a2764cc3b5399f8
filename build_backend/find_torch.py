"""Where the installed torch lives, found without importing it.

pip hides the environment's site-packages from `sys.path` while it builds in isolation, but not from
`sysconfig`, so the torch that the user already has can serve as the source of headers. The compiled
library uses torch's stable ABI, so any torch from `MINIMUM` on will do.
"""

from __future__ import annotations

import importlib.util
import re
import site
import sys
import sysconfig
from pathlib import Path

MINIMUM = (2, 10)


def _site_folders() -> list[Path]:
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if sys.prefix != sys.base_prefix and _sees_system_packages():
        base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
        folders.append(sysconfig.get_path("purelib", vars=base))
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders) if folder]


def _sees_system_packages() -> bool:
    config = Path(sys.prefix) / "pyvenv.cfg"
    text = config.read_text() if config.is_file() else ""
    return re.search(r"include-system-site-packages\s*=\s*true", text) is not None


def torch_version(folder: Path) -> tuple[int, int] | None:
    """(major, minor) of the torch package in `folder`; None where there is none."""
    file = folder / "version.py"
    if not file.is_file() or not (folder / "include/torch/csrc/stable/library.h").is_file():
        return None
    match = re.search(r"__version__\s*=\s*'?\"?(\d+)\.(\d+)", file.read_text())
    return (int(match[1]), int(match[2])) if match else None


def installed_torch() -> Path | None:
    """Folder of an installed torch of at least `MINIMUM`; None where there is none."""
    candidates = [folder / "torch" for folder in _site_folders()]
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        candidates.append(Path(spec.origin).parent)
    for folder in candidates:
        version = torch_version(folder)
        if version is not None and version >= MINIMUM:
            return folder
    return None
