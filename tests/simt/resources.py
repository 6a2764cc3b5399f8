"""What nvcc makes of every kernel: registers, shared memory and spills, per architecture.

`python -m tests.simt.resources` compiles all of csrc/*/*_cuda.cu and rewrites resources.json, which
test_resources.py holds new compilations to. A kernel that needs more registers runs fewer threads
at a time; one that spills goes to memory in its inner loop. Neither shows in any result.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.simt import build

TABLE = build.HERE / "resources.json"
ARCHITECTURES = ("sm_80", "sm_90a")
_FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-I{build.ROOT / 'csrc'}"]

Row = dict[str, int]  # registers, shared (bytes known at compile time), stack, spills (bytes)


def nvcc() -> str:
    """The compiler of the test extra (nvidia-cuda-nvcc), else the one on PATH."""
    folder = Path(sysconfig.get_path("purelib")) / "nvidia"
    packaged = sorted(folder.glob("cu*/bin/nvcc"))
    found = str(packaged[-1]) if packaged else shutil.which("nvcc")
    assert found, "no nvcc: pip install 'nvidia-cuda-nvcc==13.2.*' and its parts (test extra)"
    return found


def release() -> str:
    """Version of that compiler, such as "13.2"."""
    text = subprocess.run([nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release ([\d.]+)", text)
    assert match, text
    return match[1]


def sources() -> list[Path]:
    """Every file of kernels."""
    return sorted((build.ROOT / "csrc").glob("*/*_cuda.cu"))


def _short(mangled: str) -> str:
    """A kernel's name and template arguments without namespaces and parameters."""
    name = subprocess.run(
        ["c++filt", mangled], capture_output=True, text=True, check=True
    ).stdout.strip()
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    name = re.sub(r"\bpyfacelat::(\w+::)?", "", name).partition("(")[0]
    return name.replace("__nv_bfloat16", "bf16").replace("__half", "half").replace(" ", "")


def compile_kernels(source: Path, architecture: str, folder: Path) -> dict[str, Row]:
    """Rows of one file's kernels; `folder` takes the machine code."""
    target = folder / f"{source.stem}.{architecture}.cubin"
    command = [nvcc(), *_FLAGS, f"-arch={architecture}", "-Xptxas", "-v", "-cubin"]
    answer = subprocess.run(
        [*command, str(source), "-o", str(target)], capture_output=True, text=True
    )
    text = answer.stdout + answer.stderr
    assert answer.returncode == 0, text
    assert "warning" not in text, text
    rows: dict[str, Row] = {}
    for part in re.split(r"Compiling entry function '", text)[1:]:
        stack, stores, loads = (
            int(re.search(rf"(\d+) bytes {what}", part)[1])  # type: ignore[index]
            for what in ("stack frame", "spill stores", "spill loads")
        )
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert registers, part
        rows[_short(part.partition("'")[0])] = {
            "registers": int(registers[1]),
            "shared": int(shared[1]) if shared else 0,
            "stack": stack,
            "spills": stores + loads,
        }
    return rows


def main() -> None:
    """Rewrite the table."""
    import tempfile

    table: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in sources():
            for architecture in ARCHITECTURES:
                for name, row in compile_kernels(source, architecture, Path(folder)).items():
                    assert row["spills"] == row["stack"] == 0, (name, architecture, row)
                    cell = f"{row['registers']} registers, {row['shared']} bytes"
                    table.setdefault(name, {})[architecture] = cell
    lines = [f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table.items())]
    text = '{\n  "toolkit": %s,\n  "kernels": {\n%s\n  }\n}\n'
    TABLE.write_text(text % (json.dumps(release()), ",\n".join(lines)))


if __name__ == "__main__":
    main()
