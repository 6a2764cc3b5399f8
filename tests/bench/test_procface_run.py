"""The whole benchmark in miniature: two pairs, random networks of 32 px, a few steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.procface import run as running
from bench.procface import score as scoring
from bench.procface import summary
from bench.procface.cli import main
from bench.procface.methods import Answer
from bench.procface.pairs import Pair
from bench.procface.store import read_records
from bench.procface.tasks import TASKS, Batch, Case
from pyfacelat.errors import FacelatError

ROOT = Path(__file__).parents[2]
METHODS = "balanced:steps=4,reference:0.05:steps=2,wplus-look-only:steps=2,layer-swap"


class Balanced(HTMLParser):
    """Complains about tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps where the command line does not set them."""
    monkeypatch.setattr(running, "INVARIANCE_STEPS", 2)
    from bench.procface import methods
    from pyfacelat.projection import make_config

    plain = methods._layer_swap

    def short(label: str, options: Any) -> Any:
        swap = plain(label, options)
        return methods.replace(swap, invert=make_config(swap.invert, steps=2))

    monkeypatch.setattr(methods, "_layer_swap", short)


def values_of(records: list[dict[str, Any]]) -> dict[Any, Any]:
    """Everything but times, by key."""
    timed = ("seconds", "cpu_seconds", "curve")
    return {
        (r["task"], r["method"], r["seed"], r["pair"], r["variant"]): {
            k: v for k, v in r["values"].items() if k not in timed
        }
        for r in records
    }


def test_everything_from_end_to_end(
    tmp_path: Path, options: list[str], quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [*options, "--pairs", "2", "--method", METHODS, "--out", str(out)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "T2 look of A, landmarks of B" in shown.out and "report.html" in shown.out
    assert "left" in shown.err

    result = json.loads((out / "results.json").read_text())
    assert {r["task"] for r in result["records"]} == set(TASKS)
    assert result["resolution"] == 32
    assert set(result["files"]) == {"generator", "landmarker", "perceptual", "encoder", "judge"}
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert result["versions"]["commit"]
    assert result["methods"]["reference:0.05:steps=2"]["config"]["space"] == "w"
    t2 = result["summary"]["T2"]
    assert list(t2) == ["A itself", "B itself", *METHODS.split(","), "ideal"]
    assert t2["ideal"]["psnr"]["value"] == 60 and t2["ideal"]["look"]["value"] == 0
    assert t2["A itself"]["look_share"]["value"] == 1
    assert t2["A itself"]["kept"]["value"] == 0
    assert all(row["psnr"]["pairs"] == 2 for row in t2.values())
    assert set(result["summary"]["T4"]) == {*METHODS.split(",")[:2], "ideal"}
    assert result["summary"]["T6"]["balanced:steps=4"]["w_batch_largest"]["value"] < 1e-3
    curve = next(r for r in result["records"] if r["method"] == "balanced:steps=4" and
                 r["task"] == "T2")["values"]["curve"]  # fmt: skip
    assert len(curve) == 4 and curve[0]["seconds"] < curve[-1]["seconds"]

    page = Balanced()
    page.feed((out / "report.html").read_text())
    assert not page.open
    for word in ("T6: in a batch", "cross-talk", "jitter", "to aim for", "balanced:steps=4"):
        assert word in page.text
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 7 * 128 and sheet.height > 2 * 128

    # The same again in two halves, with --resume: the same numbers, and nothing done twice.
    half = tmp_path / "half"
    first = [*options, "--method", METHODS, "--out", str(half)]
    assert main([*first, "--pairs", "1", "--tasks", "T2"]) == 0
    assert main([*first, "--pairs", "2"]) == 2  # there are results
    assert "--resume" in capsys.readouterr().err
    assert main([*first, "--pairs", "2", "--tasks", "T2", "--resume"]) == 0
    there = values_of(read_records(half)[0])
    whole = values_of(read_records(out)[0])
    assert set(there) == {key for key in whole if key[0] == "T2"}
    for key, values in there.items():
        assert values["psnr"] == pytest.approx(whole[key]["psnr"], rel=1e-3)

    both = tmp_path / "both"
    assert main(["--merge", str(out), "--out", str(both)]) == 0
    assert json.loads((both / "results.json").read_text())["summary"] == result["summary"]


def test_resume_after_a_kill(tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "out"
    words = [*options, "--pairs", "3", "--batch", "1", "--tasks", "T1,T2", "--out", str(out)]
    words += ["--method", "balanced:steps=60"]
    victim = subprocess.Popen(
        [sys.executable, "-m", "bench.procface", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    records, until = out / "records.jsonl", time.monotonic() + 240
    while not (records.exists() and records.read_text().count("balanced") >= 2):
        assert victim.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    with open(records, "a") as file:  # as if it had been killed in the middle of a write
        file.write('{"task": "T2", "meth')
    before = records.read_text().splitlines()[:-1]

    assert main([*words, "--resume"]) == 0
    after = records.read_text().splitlines()
    assert after[: len(before)] == before
    found = values_of([json.loads(line) for line in after])
    assert len(found) == len(after) == 1 + 3 * 3 + 1 + 3  # T1 of one pair, T2 of three
    assert {key[1] for key in found} == {"A itself", "B itself", "ideal", "balanced:steps=60"}


def test_a_failing_projection_keeps_what_was_done(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain, calls = running._do, []

    def fails_at_last(job: Any, *rest: Any) -> Any:
        calls.append(job)
        if len(calls) > 4:
            raise FacelatError("step 3: landmark of image 0 became nan")
        return plain(job, *rest)

    monkeypatch.setattr(running, "_do", fails_at_last)
    words = [*options, "--pairs", "2", "--batch", "1", "--tasks", "T2", "--out", str(tmp_path)]
    assert main([*words, "--method", "balanced:steps=2"]) == 1
    assert "became nan" in capsys.readouterr().err
    assert len(read_records(tmp_path)[0]) == 4
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--method", "blanced"], 2, "did you mean 'balanced'"),
        (["--tasks", "T7"], 2, "tasks: expected one of T1"),
        (["--pairs", "0"], 2, "pairs: expected at least 1, got 0"),
        (["--pairs", "3", "--quick"], 2, "give one of the two"),
        (["--seeds", "1,x"], 2, "seeds: expected whole numbers with commas, got 'x'"),
        (["--batch", "0"], 2, "batch: expected at least 1, got 0"),
        (["--clips", "0"], 2, "clips: expected at least 1, got 0"),
        (["--judge", "/no/such.safetensors"], 4, "judge: there is no file"),
        (["--generator", "/no/such.pkl"], 4, "generator"),
        (["--encoder", "nobody"], 4, "encoder: 'nobody' is neither a file nor a name"),
        (["--device", "tpu"], 1, "device"),
    ],
)
def test_wrong_inputs(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, message: str,
) -> None:  # fmt: skip
    given = [*options, *(["--pairs", "1"] if "--pairs" not in words and "--quick" not in words
                         else []), *words, "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(given) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_a_judge_that_a_loss_sees(
    tmp_path: Path, tiny: dict[str, Path], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options, "--judge", str(tiny["landmarker"]), "--pairs", "1"]
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "a judge must be one that no loss sees" in capsys.readouterr().err


class Eyes:
    """Stands in for the networks: sees exactly the points it is told for each picture."""

    def __init__(self, seen: list[np.ndarray]) -> None:
        self.seen = seen
        self.judge = self.landmarker = object()
        self.size = 8

    def points(self, net: object, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.seen[int(x.mean())] for x in images]))

    def look_distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(a))


def test_cross_talk_by_hand() -> None:
    """Lips asked to move by 10 % of the eye distance; they move by 8 %, the rest strays by 2 %."""
    start = np.random.RandomState(0).rand(68, 2)
    start[36], start[45] = (0.2, 0.4), (0.7, 0.4)  # outer eye corners half a side apart
    lips = tuple(range(48, 68))
    asked, end = start.copy(), start.copy()
    asked[list(lips)] += (0, 0.05)
    end[list(lips)] += (0, 0.04)
    end[list(range(17, 48))] += (0.01, 0)
    seen = [start + 0.1, end + 0.1]  # a judge's lasting error cancels
    nets = Eyes(seen)
    pair = Pair(0, "small", 0.1, np.zeros(3), np.zeros(3))
    case = Case("T3", pair, "mouth", pair.a, pair.b, None, asked, lips)
    look, out = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    batch = Batch([case], look, look, None, start[None], asked[None])
    (row,) = scoring.score(batch, Answer(out), nets)  # type: ignore[arg-type]
    assert row["asked_motion"] == pytest.approx(0.10)
    assert row["moved"] == pytest.approx(0.08)
    assert row["stray"] == pytest.approx(0.02)
    assert row["cross_talk"] == pytest.approx(0.25)
    assert row["carried"] == pytest.approx(0.8)
    (still,) = scoring.score(batch, Answer(look), nets)  # type: ignore[arg-type]
    assert still["moved"] == 0 and still["cross_talk"] is None


def test_summary_by_hand() -> None:
    def record(pair: int, seed: int, asked: float, achieved: float) -> dict[str, Any]:
        return {"task": "T4", "method": "m", "seed": seed, "pair": pair, "variant": f"{asked}",
                "stratum": "small", "values": {"asked": asked, "achieved": achieved}}  # fmt: skip

    records = [
        record(pair, seed, dose, slope * dose + 0.1)
        for pair, slope in enumerate((0.5, 0.9, 1.0))
        for seed in (1, 2)
        for dose in (0.0, 0.5, 1.0)
    ]
    row = summary.doses(records, ["m"])["m"]
    assert row["slope"].value == pytest.approx(0.9) and row["slope"].count == 3
    assert row["r2"].value == pytest.approx(1.0)
    assert row["dose_0.50"].value == pytest.approx(0.55)
    assert row["slope"].low <= 0.9 <= row["slope"].high


def test_pairs_that_all_methods_have() -> None:
    records = [{"task": "T2", "method": m, "pair": p} for m, ps in
               (("a", (0, 1, 2)), ("b", (1, 2, 3))) for p in ps]  # fmt: skip
    assert summary.common_pairs(records, "T2", ["a", "b"]) == {1, 2}
    assert summary.common_pairs(records, "T2", ["a", "b", "without"]) == {1, 2}
    assert summary.common_pairs(records, "T2", []) == set()


def test_progress_says_what_is_left() -> None:
    from bench.procface.progress import Progress, duration

    lines: list[str] = []
    progress = Progress({"fast": 100, "slow": 100}, lines.append)
    progress._began = time.perf_counter() - 10
    progress.done("fast", 50, "T2 fast")
    assert "T2 fast: 10 s; about 30 s left" in lines[0]  # slow has no pace of its own yet
    progress._began = time.perf_counter() - 60
    progress.done("slow", 50, "T2 slow")
    assert "about 70 s left" in lines[1]
    assert [duration(s) for s in (3.21, 42, 600, 7500)] == ["3.2 s", "42 s", "10 min", "2 h 5 min"]


def test_labels_become_safe_file_names(tmp_path: Path) -> None:
    path = running.picture_path(tmp_path, "preset:../balanced:pixel=2", 7)
    assert path.parent.parent == tmp_path / "pictures" and path.name == "007.png"
