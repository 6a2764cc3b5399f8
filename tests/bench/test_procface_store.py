"""Records on disk: what a kill leaves, what is taken over, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.procface.store import HEADER, RECORDS, Store, key_of, merge, read_records
from pyfacelat.errors import ConfigError

HEAD = {"resolution": 64, "files": {"judge": [["j", "00"]]}}


def record(pair: int, method: str = "m", error: float = 0.5, seed: int = 1) -> dict[str, Any]:
    return {"task": "T2", "method": method, "seed": seed, "pair": pair, "variant": "",
            "values": {"nme": error, "groups": {"jaw": 1 / 3}}}  # fmt: skip


def fill(folder: Path, pairs: range, method: str = "m", header: dict[str, Any] = HEAD) -> Store:
    folder.mkdir(exist_ok=True)
    store = Store(folder, header, {method: {"steps": 3}}, resume=False)
    for pair in pairs:
        store.add([record(pair, method)])
    return store


def test_records_come_back(tmp_path: Path) -> None:
    store = fill(tmp_path, range(3))
    again = Store(tmp_path, HEAD, {"m": {"steps": 3}, "n": {"steps": 4}}, resume=True)
    assert again.records == store.records and len(again.records) == 3
    assert again.records[0]["values"]["groups"]["jaw"] == 0.333333  # six digits
    assert again.has(key_of(record(2))) and not again.has(key_of(record(3)))
    assert set(again.methods) == {"m", "n"}
    again.add([record(2, error=9.0), record(3)])  # what is there, stays
    assert len(again.records) == 4
    assert read_records(tmp_path) == (again.records, True)


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    path = tmp_path / RECORDS
    path.write_bytes(path.read_bytes()[:-20])
    store = Store(tmp_path, HEAD, {"m": {"steps": 3}}, resume=True)
    assert [r["pair"] for r in store.records] == [0, 1]
    store.add([record(2)])
    assert [r["pair"] for r in read_records(tmp_path)[0]] == [0, 1, 2]


def test_a_damaged_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    path = tmp_path / RECORDS
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"task": "T2"}', lines[2], ""]))
    with pytest.raises(ConfigError, match="line 2: damaged"):
        Store(tmp_path, HEAD, {"m": {"steps": 3}}, resume=True)


def test_results_are_not_overwritten(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    with pytest.raises(ConfigError, match="has results already; give --resume"):
        fill(tmp_path, range(1))


@pytest.mark.parametrize(
    "header, settings, words",
    [
        ({**HEAD, "resolution": 128}, {"steps": 3}, "made with resolution = 64, this run has 128"),
        ({"resolution": 64}, {"steps": 3}, "made with files"),
        (HEAD, {"steps": 4}, "has results of 'm' with other settings"),
    ],
)
def test_other_results_are_not_taken_over(
    tmp_path: Path, header: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    fill(tmp_path, range(1))
    with pytest.raises(ConfigError, match=words):
        Store(tmp_path, header, {"m": settings}, resume=True)


def test_a_header_that_is_none(tmp_path: Path) -> None:
    (tmp_path / HEADER).write_text("{}")
    with pytest.raises(ConfigError, match="not a benchmark's header"):
        Store(tmp_path, HEAD, {}, resume=True)


def test_merge(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(2))
    fill(tmp_path / "b", range(2), "n")
    content, records = merge([tmp_path / "a", tmp_path / "b"])
    assert content == {"header": HEAD, "methods": {"m": {"steps": 3}, "n": {"steps": 3}}}
    assert len(records) == 4
    fill(tmp_path / "c", range(2), "o", {**HEAD, "resolution": 128})
    with pytest.raises(ConfigError, match="resolution"):
        merge([tmp_path / "a", tmp_path / "c"])


def test_merge_refuses_two_answers_to_one_case(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(1))
    other = fill(tmp_path / "b", range(0))
    other.add([record(0, error=0.7)])
    with pytest.raises(ConfigError, match="there twice"):
        merge([tmp_path / "a", tmp_path / "b"])
