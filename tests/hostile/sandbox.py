"""Reads files in forked children with little memory and time, and says what happened.

While a file is read an audit hook stands guard: whatever would run, import, start, connect or
write something ends the reading and is reported. Run as a program, this serves its functions; see
`tests.forkserver`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from pyfacelat import checkpoints, images, latents, zoo
from pyfacelat.faces import landmarks
from tests.forkserver import serve

from . import fuzz_inputs, mutations

MEMORY = 600 << 20
SECONDS = 10
FORBIDDEN = (
    "compile", "exec", "import", "code.", "function.__new__", "marshal.", "pickle.", "ctypes.",
    "os.", "subprocess.", "pty.", "shutil.", "socket.", "urllib.", "tempfile.", "mmap.", "fcntl.",
    "signal.", "webbrowser.", "cpython.", "builtins.input", "builtins.breakpoint", "sys.settrace",
    "sys.setprofile", "sys.addaudithook",
)  # fmt: skip
"""Beginnings of the audit events that no reading of a file may cause."""


class Forbidden(BaseException):
    """What was read did something. No reader can catch this by accident."""


class Guard:
    """An audit hook (there is no way to remove one) that acts only while `path` is being read."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.path is None:
            return
        if event == "open":
            name, mode = args[0], args[1]
            # os.open has no mode; its flags say whether it writes.
            writes = any(c in mode for c in "wax+") if mode else args[2] & (os.O_WRONLY | os.O_RDWR)
            # A number is a file that is open already.
            if not writes and (isinstance(name, int) or os.fspath(name) == self.path):
                return
        elif not event.startswith(FORBIDDEN):
            return
        self.path = None  # what reports this may do as it likes
        self.seen.append(f"{event} {args[:2]!r}"[:200])
        raise Forbidden(self.seen[-1])


def load(path: str) -> str:
    """Load a file as the package would, and say what it is."""
    if path.endswith((".npz", ".npy")):
        latents.load_noise(path) if "noise" in path else latents.load_latents(path)
        return "latents"
    if path.endswith(".pt"):
        return checkpoints.read(path).kind
    zoo.load_generator(path)
    return "generator"


def attempt(path: str, guard: Guard, load: Callable[[str], Any] = load) -> dict[str, Any]:
    """Outcome of one load: "ok" or the exception's class, message, CPU seconds and megabytes."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, resource.RLIM_INFINITY))
    signal.alarm(12 * SECONDS)  # for what waits; machines are shared
    start, before = time.process_time(), usage.ru_maxrss
    out: dict[str, Any] = {"outcome": "ok", "message": "", "file": "", "reason": "", "place": ""}
    guard.path, guard.seen = path, []
    value = None
    try:
        value = load(path)
    except BaseException as error:
        guard.path = None
        out["outcome"] = type(error).__name__
        out["message"] = str(error)[:2000]
        for field in ("file", "reason", "place"):
            out[field] = getattr(error, field, "")
    guard.path = None
    out["seconds"] = time.process_time() - start
    out["mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    out["seen"] = guard.seen
    out["value"] = value
    return out


def limit_memory(size: int = MEMORY) -> None:
    """Allow this process `size` more bytes than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def complaint(path: str, found: dict[str, Any], *, megabytes: float, refused: bool) -> str:
    """What is wrong with an outcome; "" where nothing is.

    Args:
        path: of the file.
        found: see `attempt`.
        megabytes: as much as reading may take.
        refused: whether the file has to be refused, or may be.
    """
    message = found["message"]
    if found["seen"]:
        return f"did something: {found['seen']}"
    if found["seconds"] > SECONDS or found["mb"] > megabytes:
        return f"{found['seconds']:.1f} s, {found['mb']:.0f} MB"
    if found["outcome"] == "ok" and not refused:
        return ""
    if found["outcome"] != "CheckpointError":
        return f"{found['outcome']} {message[:300]}"
    if found["file"] != path or not found["reason"] or path not in message:
        return f"names neither file nor reason: {message[:300]}"
    if "more memory than there is" in message:
        return "took all the memory that it was given"
    if not message.isprintable() or len(message) > 1000:
        return f"message {message[:200]!r}"
    return ""


def read(paths: list[str]) -> Iterator[Any]:
    """Read files one after the other; their outcomes."""
    limit_memory()
    guard = Guard()
    for path in paths:
        yield attempt(path, guard)


def look(paths: list[str]) -> Iterator[Any]:
    """Open files as images: outcomes, sizes, corners and warnings."""
    limit_memory(500 << 20)
    guard = Guard()
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = attempt(path, guard, images.open_image)
        image = found.pop("value")
        if image is not None:
            assert image.mode == "RGB"
            found |= {"size": image.size, "corner": image.getpixel((0, 0))}
        yield {**found, "warnings": [str(warning.message) for warning in caught]}


def points(paths: list[str]) -> Iterator[Any]:
    """Read files of landmarks; their outcomes."""
    limit_memory()
    guard = Guard()
    for path in paths:
        yield {**attempt(path, guard, landmarks.load_points), "value": None}


def corpus() -> Iterator[Any]:
    """Read the fuzzer's corpus: how many readers refused each input."""
    limit_memory()
    guard = Guard()
    for path in sorted(fuzz_inputs.CORPUS.iterdir()):
        data = path.read_bytes()
        guard.path = ""
        refused = fuzz_inputs.read(data)
        guard.path = None
        yield [path.name, refused]


def mutate(kind: str, first: int, count: int) -> Iterator[Any]:
    """Read mutations number `first` and on of a kind of file; complaints, then the outcomes."""
    limit_memory()
    guard = Guard()
    outcomes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(first, first + count):
            path = f"{folder}/{index}{mutations.SUFFIXES[kind]}"
            data = mutations.mutation(BASES[kind], index)
            Path(path).write_bytes(data)
            found = attempt(path, guard)
            outcomes[found["outcome"]] = outcomes.get(found["outcome"], 0) + 1
            wrong = complaint(path, found, megabytes=MEMORY >> 21, refused=False)
            if wrong:
                yield f"{kind} {index}: {wrong}"
            os.unlink(path)
    yield outcomes


BASES: dict[str, list[bytes]] = {}


def warm_up() -> None:
    """Read every valid file once, so that what is imported late is imported before the guard."""
    BASES.update(mutations.bases())
    with tempfile.TemporaryDirectory() as folder:
        for kind, contents in BASES.items():
            for index, data in enumerate(contents):
                path = Path(folder) / f"{index}{mutations.SUFFIXES[kind]}"
                path.write_bytes(data)
                load(str(path))
    Image.init()


if __name__ == "__main__":
    warm_up()
    serve({"read": read, "look": look, "points": points, "corpus": corpus, "mutate": mutate})
