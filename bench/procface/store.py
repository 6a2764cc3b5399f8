"""Records on disk as they come: a kill loses at most the batch that was running.

records.jsonl has one line of JSON per case; run.json says what they belong to, and a run that does
not match is refused. A last line that a kill cut short is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pyfacelat.errors import ConfigError
from pyfacelat.files import write_atomically

Record = dict[str, Any]
Key = tuple[str, str, int, int, str]

HEADER, RECORDS = "run.json", "records.jsonl"


def key_of(record: Record) -> Key:
    """What makes a record unique: task, method, seed, pair, variant."""
    return (
        record["task"],
        record["method"],
        record["seed"],
        record["pair"],
        record["variant"],
    )


class Store:
    """The records of one folder.

    Args:
        folder: exists, and is ours alone while this lives.
        header: what all records have in common, as JSON values; kept in run.json.
        methods: settings by method, as JSON values; a run may add methods, not change them.
        resume: whether records that are there are taken over.

    Attributes:
        methods: settings of all methods that the folder knows.
        records: all of them, in the order of their writing.

    Raises:
        ConfigError: there are records and `resume` is off; or they belong to other networks, pairs
            or settings.

    """

    def __init__(self, folder: Path, header: Record, methods: Record, *, resume: bool) -> None:
        self.folder = folder
        self.records: list[Record] = []
        known: Record = {}
        if (folder / HEADER).exists():
            if not resume:
                raise ConfigError(
                    f"out: {folder} has results already; give --resume to go on with them, or "
                    "another folder"
                )
            known, self.records = self._read(header)
            for name in methods:
                if known.get(name, methods[name]) != methods[name]:
                    raise ConfigError(
                        f"resume: {folder} has results of {name!r} with other settings; "
                        "use another folder"
                    )
        self.methods: Record = known | methods
        content = {"header": header, "methods": self.methods}
        write_atomically(folder / HEADER, json.dumps(content, indent=1).encode())
        self._done = {key_of(record) for record in self.records}

    def has(self, key: Key) -> bool:
        """Whether there is a record of that key."""
        return key in self._done

    def add(self, records: Sequence[Record]) -> None:
        """Append records, but for those that are there, and flush them to disk."""
        records = [record for record in records if not self.has(key_of(record))]
        text = "".join(json.dumps(_short(record)) + "\n" for record in records)
        with open(self.folder / RECORDS, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.records += [json.loads(line) for line in text.splitlines()]
        self._done |= {key_of(record) for record in records}

    def _read(self, header: Record) -> tuple[Record, list[Record]]:
        there = read_header(self.folder)
        check_same(header, there["header"], f"resume: {self.folder}")
        records, whole = read_records(self.folder)
        if not whole:  # the next record must not be glued to the torn one
            text = "".join(json.dumps(record) + "\n" for record in records)
            write_atomically(self.folder / RECORDS, text.encode())
        return dict(there["methods"]), records


def read_header(folder: Path) -> Record:
    """What is in a folder's run.json. Raises ConfigError when it is absent or damaged."""
    try:
        content: Record = json.loads((folder / HEADER).read_text())
        if set(content) != {"header", "methods"}:
            raise ValueError("expected header and methods")
        return content
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / HEADER}: not a benchmark's header ({error})") from None


def read_records(folder: Path) -> tuple[list[Record], bool]:
    """All whole records of a folder, and whether the file ends well.

    Raises:
        ConfigError: a line other than the last is damaged.

    """
    path = folder / RECORDS
    if not path.exists():
        return [], True
    records: list[Record] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines):
            return records, not line
        try:
            record = json.loads(line)
            key_of(record)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: line {number}: damaged ({error})") from None
        records.append(record)
    return records, True


def check_same(ours: Record, theirs: Record, where: str) -> None:
    """Raise ConfigError, naming the first difference, unless two headers are equal."""
    ours = json.loads(json.dumps(ours))
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"{where}: its results were made with {name} = {theirs.get(name)!r}, "
                f"this run has {ours.get(name)!r}; use another folder"
            )


def merge(folders: Iterable[Path]) -> tuple[Record, list[Record]]:
    """Header with methods, and records, of several runs that agree on the header.

    Raises:
        ConfigError: they do not agree, or two of them have one case.

    """
    content: Record = {}
    records: dict[Key, Record] = {}
    for folder in folders:
        there = read_header(folder)
        content = content or there
        check_same(content["header"], there["header"], str(folder))
        for name, settings in there["methods"].items():
            if content["methods"].setdefault(name, settings) != settings:
                raise ConfigError(f"{folder}: {name!r} has other settings than before")
        for record in read_records(folder)[0]:
            if records.setdefault(key_of(record), record) != record and record["seed"] >= 0:
                raise ConfigError(f"{folder}: {key_of(record)} is there twice, and differs")
    return content, list(records.values())


def _short(value: Any) -> Any:
    """Numbers to six significant digits, all the way down: the file stays readable."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value
