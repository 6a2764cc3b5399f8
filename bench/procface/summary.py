"""From records to the rows of the tables: medians over pairs with 90 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.procface import metrics
from bench.procface.methods import GIVEN
from bench.procface.metrics import Array, Statistic, bootstrap, median
from bench.procface.pairs import STRATA
from bench.procface.store import Record
from bench.procface.tasks import FEATURES
from pyfacelat.faces.groups import GROUPS

LEAST_MOTION = 0.04
"""Asked motion below which T3's cross-talk is the judge's noise over itself, and is left out."""

GOALS = {
    "psnr": 22.0,
    "nme": 0.04,
    "look_share": 0.5,
    "carried_small": 0.9,
    "carried_large": 0.8,
    "gaming": 0.01,
    "cross_talk": 0.15,
    "slope": 1.0,
    "r2": 0.95,
    "jitter": 1.1,
    "lag": 0.0,
    "w_batch_largest": 1e-3,
    "w_shuffled_largest": 1e-3,
}
"""What good control would reach."""


@dataclass(frozen=True)
class Figure:
    """A number with its 90 % interval, over `count` pairs."""

    value: float
    low: float
    high: float
    count: int

    def json(self) -> dict[str, float | int | None]:
        """As JSON values; None where there is no number."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        plain = {k: float(f"{v:.6g}") if np.isfinite(v) else None for k, v in numbers.items()}
        return {**plain, "pairs": self.count}


Row = dict[str, Figure]
Table = dict[str, Row]
"""Figures by method and name."""

Pick = Callable[[dict[str, Any]], float | None]


def order(records: Sequence[Record], methods: Sequence[str]) -> list[str]:
    """Methods with records, as asked for: A and B first, the ideal last."""
    there = {record["method"] for record in records}
    return [m for m in (*GIVEN[:2], *methods, GIVEN[2]) if m in there]


def figure(records: Sequence[Record], pick: Pick, statistic: Statistic = median) -> Figure:
    """A statistic of one number per record, over pairs and their seeds.

    Records of one pair and seed (variants) are averaged first; None leaves a record out.
    """
    by_pair: dict[int, dict[int, list[float]]] = {}
    for record in records:
        value = pick(record["values"])
        if value is not None:
            by_pair.setdefault(record["pair"], {}).setdefault(record["seed"], []).append(value)
    values = [
        np.array([float(np.mean(seed)) for seed in seeds.values()]) for seeds in by_pair.values()
    ]
    return Figure(*bootstrap(values, statistic), len(values))


def value(name: str) -> Pick:
    """Pick a number by name."""
    return lambda values: values.get(name)


def select(records: Sequence[Record], task: str, **wanted: Any) -> list[Record]:
    """Records of a task with the given fields."""
    return [r for r in records if r["task"] == task and all(r[k] == v for k, v in wanted.items())]


def common_pairs(records: Sequence[Record], task: str, methods: Sequence[str]) -> set[int]:
    """Pairs that every one of some methods has in a task."""
    sets = [{r["pair"] for r in select(records, task, method=m)} for m in methods]
    return set.intersection(*[s for s in sets if s] or [set()])


def transfer(records: Sequence[Record], methods: Sequence[str], goals: dict[str, float]) -> Table:
    """T2: the headline.

    Args:
        records: of one set of pairs.
        methods: rows.
        goals: what counts as reached: NME to the ideal, and look distance as a share of A's own.

    """
    table: Table = {}
    for method in methods:
        own = select(records, "T2", method=method)
        if not own:
            continue
        row = {
            name: figure(own, value(name))
            for name in ("psnr", "look", "nme", "nme_b", "carried", "carried_ideal", "gaming",
                         "kept", "traits", "seconds", "cpu_seconds")
        }  # fmt: skip
        row["look_share"] = figure(own, lambda v: v["look"] / max(v["start_look"], 1e-9))
        row["auc"] = figure(own, value("nme"), metrics.area_under_curve)
        row["failures"] = figure(own, value("nme"), metrics.failures)
        row["auc_b"] = figure(own, value("nme_b"), metrics.area_under_curve)
        row["failures_b"] = figure(own, value("nme_b"), metrics.failures)
        for stratum, *_ in STRATA:
            part = [r for r in own if r["stratum"] == stratum]
            row[f"carried_{stratum}"] = figure(part, value("carried"))
            row[f"carried_ideal_{stratum}"] = figure(part, value("carried_ideal"))
            row[f"psnr_{stratum}"] = figure(part, value("psnr"))
        for group in GROUPS:
            row[f"nme_{group}"] = figure(own, _in_group(group))
        reached = [_reach(r["values"], goals) for r in own if "curve" in r["values"]]
        if reached:
            row["reached"] = figure(
                own, lambda v: float(_reach(v, goals) is not None), lambda a: a.mean(-1)
            )
            row["reach_seconds"] = figure(own, lambda v: _reach(v, goals))
        table[method] = row
    return table


def _in_group(group: str) -> Pick:
    return lambda values: values["nme_groups"][group]


def _reach(values: dict[str, Any], goals: dict[str, float]) -> float | None:
    limits = {"nme": goals["nme"], "look": goals["look_share"] * values["start_look"]}
    return metrics.seconds_to_reach(values.get("curve", []), limits)


def inversion(records: Sequence[Record], methods: Sequence[str]) -> Table:
    """T1."""
    return _plain(records, methods, "T1", ("psnr", "look", "nme", "seconds"))


def features(records: Sequence[Record], methods: Sequence[str]) -> dict[str, Table]:
    """T3 by feature."""
    found = {}
    for feature in FEATURES:
        part = [r for r in records if r["variant"] == feature]
        table = _plain(part, methods, "T3", ("psnr", "look", "nme"))
        for method, row in table.items():
            moving = [
                r
                for r in select(part, "T3", method=method)
                if r["values"]["asked_motion"] >= LEAST_MOTION
            ]
            for name in ("cross_talk", "carried", "asked_motion", "moved", "stray"):
                row[name] = figure(moving, value(name))
        found[feature] = table
    return found


def doses(records: Sequence[Record], methods: Sequence[str]) -> Table:
    """T4: slope and R^2 of achieved over asked dose, pair by pair; achieved dose by asked one."""
    table: Table = {}
    for method in methods:
        own = select(records, "T4", method=method)
        if not own:
            continue
        fits: dict[tuple[int, int], tuple[float, float]] = {}
        for key in {(r["pair"], r["seed"]) for r in own}:
            points = [r["values"] for r in own if (r["pair"], r["seed"]) == key]
            fits[key] = metrics.line_fit(
                [p["asked"] for p in points], [p["achieved"] for p in points]
            )
        row = {}
        for k, name in enumerate(("slope", "r2")):
            by_pair: dict[int, list[float]] = {}
            for (pair, _), fit in fits.items():
                by_pair.setdefault(pair, []).append(fit[k])
            row[name] = Figure(*bootstrap(list(by_pair.values())), len(by_pair))
        for dose in sorted({r["values"]["asked"] for r in own}):
            part = [r for r in own if r["values"]["asked"] == dose]
            row[f"dose_{dose:.2f}"] = figure(part, value("achieved"))
        table[method] = row
    return table


def motion(records: Sequence[Record], methods: Sequence[str]) -> dict[str, Table]:
    """T5 with clean and with noisy points."""
    names = ("psnr", "look", "nme", "jitter", "lag", "seconds")
    return {
        variant: _plain([r for r in records if r["variant"] == variant], methods, "T5", names)
        for variant in ("clean", "noisy")
    }


def invariance(records: Sequence[Record], methods: Sequence[str]) -> Table:
    """T6: the largest difference over all pairs, and the median one."""
    table = _plain(records, methods, "T6", ("w_batch", "w_shuffled", "levels_batch"))
    for method, row in table.items():
        own = select(records, "T6", method=method)
        for name in ("w_batch", "w_shuffled", "levels_batch"):
            row[f"{name}_largest"] = figure(own, value(name), _largest)
    return table


def _largest(values: Array) -> Array:
    return np.asarray(values.max(-1))


def _plain(
    records: Sequence[Record], methods: Sequence[str], task: str, names: Sequence[str]
) -> Table:
    table = {}
    for method in methods:
        own = select(records, task, method=method)
        if own:
            table[method] = {name: figure(own, value(name)) for name in names}
    return table


@dataclass(frozen=True)
class Tables:
    """All tables of a run, each computed once.

    Attributes:
        inversion, doses, invariance: T1, T4, T6.
        transfer: T2 over the pairs that all methods have.
        transfer_all: T2 over each method's own pairs.
        features: T3 by feature.
        motion: T5 with clean and with noisy points.

    """

    inversion: Table
    transfer: Table
    transfer_all: Table
    features: dict[str, Table]
    doses: Table
    motion: dict[str, Table]
    invariance: Table

    def json(self) -> dict[str, Any]:
        """As JSON values, by task."""

        def plain(table: Table) -> dict[str, Any]:
            return {m: {name: f.json() for name, f in row.items()} for m, row in table.items()}

        return {
            "T1": plain(self.inversion),
            "T2": plain(self.transfer),
            "T2_all_pairs": plain(self.transfer_all),
            "T3": {name: plain(table) for name, table in self.features.items()},
            "T4": plain(self.doses),
            "T5": {name: plain(table) for name, table in self.motion.items()},
            "T6": plain(self.invariance),
        }


def tabulate(records: Sequence[Record], methods: Sequence[str], goals: dict[str, float]) -> Tables:
    """All tables of some records; arguments as for `transfer`."""
    rows = order(records, methods)
    shared = common_pairs(records, "T2", rows)
    common = [r for r in records if r["task"] != "T2" or r["pair"] in shared]
    headline = transfer(common, rows, goals)
    uneven = len(common) < len(records)
    return Tables(
        inversion=inversion(records, rows),
        transfer=headline,
        transfer_all=transfer(records, rows, goals) if uneven else headline,
        features=features(records, rows),
        doses=doses(records, rows),
        motion=motion(records, rows),
        invariance=invariance(records, rows),
    )
