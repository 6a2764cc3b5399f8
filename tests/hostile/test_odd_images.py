"""Every odd or bad image has its stated outcome, within 10 seconds and 500 MB, and runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.forkserver import ForkServer

from .odd_images import TABLE, Case, Read, Refused


@pytest.fixture(scope="module")
def found(
    sandbox: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Name -> what came of it, all read by children."""
    folder = tmp_path_factory.mktemp("images")
    for entry in TABLE:
        entry.make(folder / entry.name)
    out = {}
    for start in range(0, len(TABLE), 20):
        batch = TABLE[start : start + 20]
        answer = sandbox("look", paths=[str(folder / entry.name) for entry in batch])
        assert len(answer.values) == len(batch), (batch[len(answer.values)], answer)
        out |= {entry.name: value for entry, value in zip(batch, answer.values, strict=True)}
    return out


def test_there_are_enough_and_no_two_of_one_name(tally: Callable[[str, int], None]) -> None:
    assert len({entry.name for entry in TABLE}) == len(TABLE) >= 55
    tally("odd and bad images", len(TABLE))


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name[:40])
def test_outcome(entry: Case, found: dict[str, dict[str, Any]]) -> None:
    result = found[entry.name]
    assert not result["seen"], result
    assert result["seconds"] < 10 and result["mb"] < 500, result
    if isinstance(entry.outcome, Refused):
        assert result["outcome"] == "ImageError", result
        assert entry.name[:40] in result["message"] and entry.outcome.words in result["message"]
        assert result["message"].isprintable() and len(result["message"]) < 1000
        return
    expected: Read = entry.outcome
    assert result["outcome"] == "ok", result
    assert tuple(result["size"]) == expected.size
    lossy = Path(entry.name).suffix == ".jpg" or "suffix.png" in entry.name
    off = max(abs(a - b) for a, b in zip(result["corner"], expected.corner, strict=True))
    assert off <= (12 if lossy else 1), result
    assert any(expected.warns in text for text in result["warnings"]) or not expected.warns
    assert bool(result["warnings"]) == bool(expected.warns), result
