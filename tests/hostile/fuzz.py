"""Coverage-guided fuzzing of the readers with atheris: `make fuzz`.

Allowed are a result and CheckpointError. An audit hook, a limit of 600 MB and libFuzzer's limit of
time stand guard. `tests.hostile.fuzz_inputs` says what an input is.

    python -m tests.hostile.fuzz WORK_FOLDER tests/hostile/corpus -max_total_time=600
"""

from __future__ import annotations

import codecs
import sys

import atheris

with atheris.instrument_imports(include=["pyfacelat.checkpoints"]):
    from .fuzz_inputs import read

from .sandbox import Guard, limit_memory


def main() -> None:
    """Fuzz; arguments are libFuzzer's."""
    codecs.lookup("cp437")  # zipfile's, imported when it is first needed
    guard = Guard()

    def test_one_input(data: bytes) -> None:
        guard.path = ""  # on guard, and there is no file to be opened
        try:
            read(data)
        finally:
            guard.path = None

    atheris.Setup(sys.argv, test_one_input)
    limit_memory()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
