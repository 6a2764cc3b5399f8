"""No run loses work: killed, interrupted, out of disk or memory, two at once, a state that rotted.

What has to happen in each case is said by the tests' names; each happens in a child process.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pyfacelat.projection.outdir import Outdir
from tests.forkserver import Answer, ForkServer

ASSETS = Path(__file__).resolve().parents[2] / "pyfacelat" / "assets"
RESULT = {
    "projected_w.npz", "noise.npz", "proj.png", "target_look.png", "target_landmarks.png",
    "strip.png", "losses.png", "result.json", "report.html",
}  # fmt: skip
STATES = {"state.safetensors", "state.previous.safetensors"}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer("tests.projection.accidents")
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer) -> str:
    """Digest of the run that nothing happens to."""
    return only(server("whole"))["digest"]  # type: ignore[no-any-return]


def only(answer: Answer) -> dict[str, Any]:
    assert answer.exit == 0, answer
    (value,) = answer.values
    return value  # type: ignore[no-any-return]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("chain", range(5))
def test_killed_at_twenty_random_steps(
    chain: int,
    server: ForkServer,
    undisturbed: str,
    tmp_path: Path,
    tally: Callable[[str, int], None],
) -> None:
    """Five runs, each killed four times on its way, end with the bits of one that was not."""
    random = np.random.default_rng(chain)
    for leg in range(4):
        number, every = int(random.integers(1, 7)), int(random.integers(1, 5))
        answer = server(
            "killed_at_step", outdir=str(tmp_path), number=number, every=every, resume=leg > 0
        )
        assert answer.exit == -9 and not answer.values
        assert not RESULT & names(tmp_path)
    found = only(server("again", outdir=str(tmp_path)))
    assert found == {"digest": undisturbed, "warnings": []}
    assert names(tmp_path) == RESULT
    tally("runs killed at a random step, resumed to the same bits", 4)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 13, 15, 17, 18, 20])
def test_killed_between_two_writes(
    number: int, server: ForkServer, undisturbed: str, tmp_path: Path
) -> None:
    """At each kind of rename: a first state, the two of a later one, the files of the result."""
    answer = server("killed_at_rename", outdir=str(tmp_path), number=number)
    assert answer.exit == -9
    for path in tmp_path.glob("*.npz"):
        np.load(path, allow_pickle=False).close()
    for path in tmp_path.glob("*.png"):
        Image.open(path).verify()
    assert only(server("again", outdir=str(tmp_path)))["digest"] == undisturbed
    assert names(tmp_path) == RESULT  # the temporary file and the lock it left are gone


@pytest.mark.parametrize("number", [1, 9, 14, 24])
def test_interrupted_once_ends_after_the_step_and_resumes(
    number: int, server: ForkServer, undisturbed: str, tmp_path: Path
) -> None:
    answer = server("signalled", outdir=str(tmp_path), number=number, name="SIGINT", times=1)
    found, handler_is_back = answer.values
    assert found == {"error": "KeyboardInterrupt", "message": "", "warnings": []}
    assert handler_is_back
    assert "state.safetensors" in names(tmp_path) <= STATES
    assert only(server("again", outdir=str(tmp_path)))["digest"] == undisturbed


def test_interrupted_twice_ends_at_once(server: ForkServer, tmp_path: Path) -> None:
    answer = server("signalled", outdir=str(tmp_path), number=9, name="SIGINT", times=2)
    assert answer.values[0]["error"] == "KeyboardInterrupt"
    assert names(tmp_path) == set()


def test_terminated_saves_and_exits(server: ForkServer, undisturbed: str, tmp_path: Path) -> None:
    answer = server("signalled", outdir=str(tmp_path), number=9, name="SIGTERM", times=1)
    assert answer.exit == 143 and not answer.values
    assert names(tmp_path) == {"state.safetensors"}
    assert only(server("again", outdir=str(tmp_path)))["digest"] == undisturbed
    assert server("signalled", outdir=str(tmp_path), number=9, name="SIGTERM", times=2).exit == -15


def test_a_handler_of_the_programs_own_is_called_and_the_run_goes_on(
    server: ForkServer, undisturbed: str, tmp_path: Path
) -> None:
    found, calls = server("signalled_with_handler", outdir=str(tmp_path), number=9).values
    assert calls == 1 and found["digest"] == undisturbed


def test_a_run_in_a_thread(server: ForkServer, undisturbed: str, tmp_path: Path) -> None:
    assert only(server("in_a_thread", outdir=str(tmp_path)))["digest"] == undisturbed


@pytest.mark.parametrize(
    "name, code, word", [("SIGINT", 130, "interr"), ("SIGTERM", 143, "termin")]
)
def test_the_program_says_how_to_go_on(
    name: str, code: int, word: str, server: ForkServer, tmp_path: Path
) -> None:
    look = sorted(ASSETS.glob("*.png"))[0]
    arguments = ["project", str(look), "--steps", "12", "--outdir", str(tmp_path)]
    answer = server("main_program", arguments=arguments, number=5, name=name)
    assert answer.values == [code]
    assert word in answer.stderr and "--resume" in answer.stderr and "Trace" not in answer.stderr
    assert names(tmp_path) == {"state.safetensors"}
    assert only(server("main_program", arguments=[*arguments, "--resume"])) == 0
    assert names(tmp_path) == RESULT


@pytest.mark.parametrize("limit, kept", [(400, set()), (20_000, RESULT - {"strip.png"})])
def test_disk_full_keeps_what_fits_and_the_result(
    limit: int, kept: set[str], server: ForkServer, undisturbed: str, tmp_path: Path
) -> None:
    found = only(server("disk_full", outdir=str(tmp_path), limit=limit))
    assert found["error"] == "OutputError" and found["errno"] == errno.EFBIG
    assert str(tmp_path) in found["message"] and "too large" in found["message"]
    assert found["digest"] == undisturbed  # the error brings the result along
    assert any("cannot be saved" in text for text in found["warnings"])
    # In the order of writing, up to the first that did not fit.
    first = {"projected_w.npz", "noise.npz", "proj.png", "target_look.png", "target_landmarks.png"}
    assert names(tmp_path) - STATES == (first if kept else set())
    assert only(server("again", outdir=str(tmp_path)))["digest"] == undisturbed
    assert names(tmp_path) == RESULT


def test_disk_full_costs_only_the_video(server: ForkServer, tmp_path: Path) -> None:
    found = only(server("disk_full", outdir=str(tmp_path), limit=300_000, video=True))
    assert found["error"] == "OutputError" and "proj.mp4" in found["message"]
    assert names(tmp_path) == RESULT


def test_two_at_once(server: ForkServer, undisturbed: str, tmp_path: Path) -> None:
    call = ("again", {"outdir": str(tmp_path), "resume": False})
    found = [only(answer) for answer in server.together(call, call)]
    done = [one for one in found if "digest" in one]
    busy = [one for one in found if one.get("error") == "OutdirBusyError"]
    assert len(done) + len(busy) == 2 and done
    assert all(one["digest"] == undisturbed for one in done)
    assert all("process" in one["message"] for one in busy)
    assert names(tmp_path) == RESULT


def test_twenty_times_four_at_once_and_one_dies(server: ForkServer, tmp_path: Path) -> None:
    """The lock is never held twice, and a dead holder's is free again."""
    call: dict[str, Any] = {"outdir": str(tmp_path), "rounds": 20}
    calls = [("contend", {**call, "die": index == 0}) for index in range(4)]
    dead, *others = server.together(*calls)
    assert dead.exit == -9
    assert [only(answer) for answer in others] == [20] * 3
    with Outdir(tmp_path):
        pass
    assert names(tmp_path) == set()


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_state_falls_back_to_the_one_before(
    damage: str, server: ForkServer, undisturbed: str, tmp_path: Path
) -> None:
    server("killed_at_step", outdir=str(tmp_path), number=20, every=3)
    newest = tmp_path / "state.safetensors"
    size = newest.stat().st_size
    if damage == "flipped":
        flip(newest, size // 2)
    elif damage == "cut":
        newest.write_bytes(newest.read_bytes()[: size // 2])
    else:
        newest.unlink()
    found = only(server("again", outdir=str(tmp_path)))
    assert found["digest"] == undisturbed
    # A crash between two renames leaves one state too, and nothing to worry about.
    assert len(found["warnings"]) == (damage != "gone")
    assert all("damaged" in text and "previous" in text for text in found["warnings"])


def test_two_damaged_states_are_an_error(server: ForkServer, tmp_path: Path) -> None:
    server("killed_at_step", outdir=str(tmp_path), number=20, every=3)
    for name in STATES:
        flip(tmp_path / name, (tmp_path / name).stat().st_size // 2)
    found = only(server("again", outdir=str(tmp_path)))
    assert found["error"] == "CheckpointError" or "damaged" in found["message"]
    assert str(tmp_path / "state.safetensors") in found["message"]
    assert STATES <= names(tmp_path)


@pytest.mark.parametrize("number, states", [(4, 0), (9, 1), (20, 2)])
def test_nan_at_a_step_keeps_the_last_finite_state_of_every_image(
    number: int, states: int, server: ForkServer, tmp_path: Path
) -> None:
    found = only(server("not_finite", outdir=str(tmp_path), number=number, count=3))
    assert found["error"] == "NonFiniteError"
    assert f"step {number}: " in found["message"] and "of image 1 became nan" in found["message"]
    assert len(STATES & names(tmp_path)) == states
    for index in range(3):
        folder = tmp_path / f"{index:03d}"
        assert names(folder) == RESULT
        assert np.isfinite(np.load(folder / "projected_w.npz", allow_pickle=False)["w"]).all()
        assert json.loads((folder / "result.json").read_text())["steps"] <= number


@pytest.mark.parametrize("where", ["one by one", "step", "image"])
def test_out_of_memory_in_item_3_of_5(where: str, server: ForkServer, tmp_path: Path) -> None:
    """Finished items are on disk, the error says what to do, and the next attempt passes."""
    answer = server("out_of_memory", outdir=str(tmp_path), where=where)
    assert answer.exit == 0, answer.stderr
    message, there, passes = answer.values
    count = 1 if where == "one by one" else 5
    assert f"out of memory with {count} image(s) at 16 px" in message and "resume=True" in message
    # Of a batch nothing is finished before all of it is; its state is there.
    if where == "one by one":
        assert there == ["0", "1"]
    else:
        assert "state.safetensors" in there and set(there) <= STATES
    assert passes is True
