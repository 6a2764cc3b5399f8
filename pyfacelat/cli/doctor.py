"""`pyfacelat doctor`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from typing import Annotated, Any

import typer

from pyfacelat.version import __version__

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "pillow",
    "safetensors",
    "av",
    "lpips",
    "face-alignment",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what is installed, what was built, what each op uses and why, and where weights are."""
    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    _print(report)


def examine() -> dict[str, Any]:
    """Everything `doctor` prints, as plain JSON values."""
    import torch

    from pyfacelat import _extension, zoo
    from pyfacelat.ops import backend_report

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {
            "pyfacelat": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "devices": devices,
        "build": dict(_extension.build_info()),
        "library": _extension.load() or "loaded",
        "ops": [dict(row) for row in backend_report()],
        "weights": [_plain(row) for row in zoo.known_weights()],
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _plain(row: Any) -> dict[str, Any]:
    fields = row if isinstance(row, dict) else vars(row)
    return {
        name: [str(item) for item in value]
        if isinstance(value, list | tuple)
        else value
        if isinstance(value, int | float | bool | None)
        else str(value)
        for name, value in fields.items()
    }


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)

    def table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        shown = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False
        )
        for column in columns:
            shown.add_column(column, overflow="fold")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        console.print()

    table("Versions", ("", ""), [(k, v) for k, v in report["versions"].items()])
    table("Devices", ("",), [(device,) for device in report["devices"]])
    build = {"library": report["library"], **report["build"]}
    table("Build", ("", ""), [(k, str(v)) for k, v in build.items()])
    table(
        "Ops",
        ("op", "device", "uses", "has", "why not a faster one"),
        [
            (r["op"], r["device"], r["used"], ", ".join(r["available"]), r["why_not_faster"])
            for r in report["ops"]
        ],
    )
    console.print("Weights", style="bold")
    for row in report["weights"]:
        found = row.get("found")
        mark = f"[green]there[/green]  {found}" if found else "[yellow]absent[/yellow]"
        console.print(f"{row['name']:12} {mark}", soft_wrap=True)
        if not found:
            for path in row.get("searched", []):
                console.print(f"{'':12} looked for {path}", soft_wrap=True, highlight=False)
            console.print(f"{'':12} {row.get('how', '')}", soft_wrap=True, highlight=False)
