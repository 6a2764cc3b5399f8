"""Seeded mutations of valid files: each is read, or refused as CheckpointError; nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.forkserver import ForkServer

from .mutations import SUFFIXES, bases, mutation

COUNT = 1000
BATCH = 250


@pytest.mark.parametrize("kind", SUFFIXES)
def test_mutations(kind: str, sandbox: ForkServer, tally: Callable[[str, int], None]) -> None:
    outcomes: dict[str, int] = {}
    problems = []
    for first in range(0, COUNT, BATCH):
        answer = sandbox("mutate", kind=kind, first=first, count=BATCH)
        assert answer.exit == 0, f"{kind} {first}..{first + BATCH}: {answer}"
        *wrong, found = answer.values
        problems += wrong
        for outcome, count in found.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    assert not problems, "\n".join(problems)
    assert sum(outcomes.values()) == COUNT and outcomes["CheckpointError"] > COUNT // 3, outcomes
    tally(f"mutations of {kind} files", COUNT)


def test_what_the_fuzzer_found(sandbox: ForkServer, tally: Callable[[str, int], None]) -> None:
    """Its corpus reaches every line that it ever reached; `make fuzz` goes on from there."""
    answer = sandbox("corpus")
    assert answer.exit == 0, answer
    assert len(answer.values) >= 100 and sum(refused for _, refused in answer.values) > 100
    tally("inputs of the fuzzer", len(answer.values))


def test_mutations_are_the_same_every_time() -> None:
    valid = bases()["npy"]
    assert mutation(valid, 5) == mutation(valid, 5) != mutation(valid, 8)
