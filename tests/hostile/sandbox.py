"""Reads files in forked children with little memory and time, and says what happened.

Run as a program: it imports the package once, then forks for every path that comes in on standard
input and answers each with one line of JSON. A fresh process does this because a fork of the test
process could inherit thread pools.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MEMORY = 600 << 20
SECONDS = 10
ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> str:
    """Load a file as the package would, and say what it is."""
    from pyfacelat import checkpoints, latents, zoo

    if path.endswith((".npz", ".npy")):
        latents.load_noise(path) if "noise" in path else latents.load_latents(path)
        return "latents"
    if path.endswith(".pt"):
        return checkpoints.read(path).kind
    zoo.load_generator(path)
    return "generator"


def attempt(path: str) -> dict[str, Any]:
    """Outcome of one load: "ok" or the exception's class, message, CPU seconds and megabytes."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out: dict[str, Any] = {"outcome": "ok", "message": "", "file": "", "reason": ""}
    try:
        out["message"] = load(path)
    except BaseException as error:
        out["outcome"] = type(error).__name__
        out["message"] = str(error)[:2000]
        out["file"] = getattr(error, "file", "")
        out["reason"] = getattr(error, "reason", "")
        out["place"] = getattr(error, "place", "")
    out["seconds"] = time.process_time() - start
    out["mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return out


def _child(paths: list[str], write: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with os.fdopen(write, "w") as out:
        for path in paths:
            used = resource.getrusage(resource.RUSAGE_SELF)
            spent = int(used.ru_utime + used.ru_stime)
            resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, resource.RLIM_INFINITY))
            signal.alarm(12 * SECONDS)  # for what waits; machines are shared
            print(json.dumps(attempt(path)), file=out, flush=True)


def serve() -> None:
    import pyfacelat.latents
    import pyfacelat.zoo  # noqa: F401

    for line in sys.stdin:
        paths = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            try:
                _child(paths, write)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            lines = answers.read().splitlines()
        _, status = os.waitpid(pid, 0)
        found = [json.loads(text) for text in lines]
        if len(found) < len(paths):
            died = {"outcome": f"died with status {status}", "message": paths[len(found)]}
            found.append({**died, "seconds": 0.0, "mb": 0.0, "file": "", "reason": ""})
        print(json.dumps(found), flush=True)


class Sandbox:
    """The program above, for as long as a test session needs it."""

    def __init__(self, canary: Path) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self.canary = canary
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def __call__(self, paths: Iterable[Path]) -> list[dict[str, Any]]:
        """Load files one after the other in one child; a crash ends the list."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(path) for path in paths]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())  # type: ignore[no-any-return]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


if __name__ == "__main__":
    serve()
