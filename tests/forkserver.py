"""Functions in forked children of one warmed-up process: what tests may kill, starve and corrupt.

A server imports what its module needs once, then forks for every call that comes in on standard
input. A fresh process does this because a fork of the test process could inherit thread pools.
A function is a generator: each value it yields is passed on at once, so that what a child said
before it died is known.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Answer:
    """What a child did.

    Attributes:
        values: what the function yielded.
        exit: its exit code, or minus the number of the signal that killed it.
        stderr: what it wrote there, and to stdout.
    """

    values: list[Any]
    exit: int
    stderr: str


Function = Callable[..., Iterator[Any]]


def serve(functions: dict[str, Function]) -> None:
    """Answer lines of JSON, each a list of calls that run side by side, until there are no more."""
    # A test run in the background of a script is started with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        children = [_start(functions[name], arguments) for name, arguments in json.loads(line)]
        print(json.dumps([_finish(*child) for child in children]), flush=True)
    os._exit(0)  # without taking torch apart first


def _start(function: Function, arguments: dict[str, Any]) -> tuple[int, int, int]:
    values, errors = os.pipe(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(values[1])
        os.close(errors[1])
        return pid, values[0], errors[0]
    code = 1
    try:
        os.close(values[0])
        os.close(errors[0])
        os.dup2(errors[1], 1)  # the server's own output is for answers alone
        os.dup2(errors[1], 2)
        with os.fdopen(values[1], "w") as out:
            for value in function(**arguments):
                print(json.dumps(value), file=out, flush=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _finish(pid: int, values: int, errors: int) -> tuple[list[Any], int, str]:
    with os.fdopen(values) as said, os.fdopen(errors, errors="replace") as written:
        lines, stderr = said.read().splitlines(), written.read()
    _, status = os.waitpid(pid, 0)
    return [json.loads(text) for text in lines], os.waitstatus_to_exitcode(status), stderr


class ForkServer:
    """A server process, for as long as a test session needs it.

    Args:
        module: dotted name of a module that calls `serve` when it is run.
    """

    def __init__(self, module: str) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )

    def together(self, *calls: tuple[str, dict[str, Any]]) -> list[Answer]:
        """Make calls (function, arguments) side by side, and wait for all of them."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(calls) + "\n")
        self._process.stdin.flush()
        return [Answer(*found) for found in json.loads(self._process.stdout.readline())]

    def __call__(self, function: str, **arguments: Any) -> Answer:
        """Make one call."""
        (answer,) = self.together((function, arguments))
        return answer

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)
