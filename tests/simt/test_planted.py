"""The emulation catches what it is there for: one planted bug a kernel, and what must notice it."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from tests.simt import build

SOURCE = build.HERE / "planted.cu"
BUGS = re.findall(r"^  (k\w+),$", SOURCE.read_text(), re.MULTILINE)
ORDERS = (0, 1, 2, 3, 4, 5)
ALL = [(order, lazy) for order in ORDERS for lazy in (0, 1)]


def pointer(x: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def numbers(n: int) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=torch.float32)


def empty(*size: int) -> torch.Tensor:
    return torch.full(size, float("nan"))


def reverse(library: ctypes.CDLL, bug: int, n: int = 256) -> tuple[int, list[torch.Tensor]]:
    x, y = numbers(n), empty(n)
    total = torch.zeros(4)
    rounds = 3
    code = library.planted_reverse(pointer(x), pointer(y), pointer(total), n, rounds, bug)
    return code, [y, total]


def vectors(library: ctypes.CDLL, bug: int) -> tuple[int, list[torch.Tensor]]:
    x, y = numbers(132), empty(132)
    return library.planted_vectors(pointer(x), pointer(y), 132, bug), [y[:128]]


def trade(library: ctypes.CDLL, bug: int) -> tuple[int, list[torch.Tensor]]:
    x, y = numbers(64), empty(64)
    return library.planted_trade(pointer(x), pointer(y), bug), [y]


def staged(library: ctypes.CDLL, bug: int) -> tuple[int, list[torch.Tensor]]:
    x, y = numbers(64 * 5 + 4), empty(64 * 5)
    return library.planted_copy(pointer(x), pointer(y), 5, bug), [y]


def product(library: ctypes.CDLL, bug: int, transposed: int = 0) -> tuple[int, list[torch.Tensor]]:
    a, b, d = matrices(transposed)
    return library.planted_product(pointer(a), pointer(b), pointer(d), transposed, bug), [d]


def matrices(transposed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    size = (16, 8) if transposed else (8, 16)
    a, b = (torch.randn(s, generator=generator).bfloat16() for s in ((16, 16), size))
    return a, b, empty(16, 8)


def expected(run: Callable[..., object]) -> list[torch.Tensor]:
    if run is reverse:
        x = numbers(256).view(4, 64)
        return [x.flip(1).flatten(), x.sum(1)]
    if run is vectors:
        return [numbers(128)]
    if run is trade:
        return [numbers(64).view(32, 2).flip(1).flatten()]
    if run is staged:
        return [numbers(320).view(5, 64).roll(32, 1).flatten()]
    a, b, _ = matrices(0)
    return [(a.double() @ b.double().T).float()]


Outcome = tuple[bool, str]


def outcome(
    run: Callable[..., tuple[int, list[torch.Tensor]]],
    variant: str,
    bug: int,
    order: int,
    lazy: int,
) -> Outcome:
    """Whether the right result came without a complaint, and the complaint."""
    path = build.build([SOURCE], variant)
    library = build.load(path)
    library.simt_configure(order, lazy)
    code, found = run(library, bug)
    if code:
        return False, build.with_lines(library.simt_error().decode(), path)
    right = all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected(run), strict=True))
    return right, ""


@pytest.mark.parametrize("variant", ["plain", "race"])
@pytest.mark.parametrize("run", [reverse, vectors, trade, staged, product])
def test_without_a_bug_every_order_is_right_and_silent(run: Callable, variant: str) -> None:
    for order, lazy in ALL:
        assert outcome(run, variant, 0, order, lazy) == (True, ""), (order, lazy)


def test_transposed_loads() -> None:
    library = build.load(build.build([SOURCE], "plain"))
    library.simt_configure(0, 0)
    code, (found,) = product(library, 0, transposed=1)
    a, b, _ = matrices(1)
    assert code == 0
    assert torch.allclose(found, (a.double() @ b.double()).float(), atol=1e-5)


# What a broken rule of the machine says, whatever the order.
SAID = [
    ("kBarrierInBranch", reverse, r"barrier of line \d+ while|deadlock|returned without"),
    ("kTwoBarriers", reverse, r"at the barrier of line \d+ while others wait at that of line \d+"),
    ("kShuffleInBranch", reverse, r"__shfl_down_sync|deadlock"),
    ("kMisalignedCopy", staged, r"copy_async at line \d+: .* aligned to 16"),
    ("kOverlappingCopies", staged, r"two copies under way to the same bytes"),
    ("kNoWait", staged, r"two copies under way|returned while its asynchronous copies"),
    ("kTooMuchShared", reverse, r"bytes of shared memory at most"),
]


@pytest.mark.parametrize(("bug", "run", "text"), SAID, ids=[row[0] for row in SAID])
def test_a_broken_rule_is_named(bug: str, run: Callable, text: str) -> None:
    for order in ORDERS:
        right, said = outcome(run, "plain", BUGS.index(bug), order, 0)
        assert not right and re.search(text, said), (order, said)


def test_a_return_before_a_barrier_is_named() -> None:
    library = build.load(build.build([SOURCE], "plain"))
    for order in ORDERS:
        library.simt_configure(order, 0)
        code, _ = reverse(library, BUGS.index("kReturnBeforeBarrier"), n=250)
        assert code and re.search(r"have returned|deadlock", library.simt_error().decode())


# Races: reported with both source lines, whatever the order, where values may be right by luck.
RACES = [
    ("kNoBarrierBeforeRead", reverse),
    ("kNoBarrierBeforeReuse", reverse),
    ("kTwoBlocksOneWord", reverse),
    ("kNoWarpBarrier", trade),
    ("kNoBarrierAfterWait", staged),
]


@pytest.mark.parametrize(("bug", "run"), RACES, ids=[row[0] for row in RACES])
def test_a_race_is_reported_with_both_lines(bug: str, run: Callable) -> None:
    for order in ORDERS:
        right, said = outcome(run, "race", BUGS.index(bug), order, 0)
        assert not right and re.search(r"race: .*(\.cu|\.h):\d+.*(\.cu|\.h):\d+", said), said


# Wrong values under at least one order, without any checker.
VALUES = [
    ("kNoBarrierBeforeRead", reverse),
    ("kNoBarrierBeforeReuse", reverse),
    ("kUninitialised", reverse),
    ("kTwoBlocksOneWord", reverse),
    ("kNoWarpBarrier", trade),
    ("kWaitTooWeak", staged),
    ("kNoBarrierAfterWait", staged),
    ("kWrongFragment", product),
]


@pytest.mark.parametrize(("bug", "run"), VALUES, ids=[row[0] for row in VALUES])
def test_some_order_shows_a_wrong_value(bug: str, run: Callable) -> None:
    assert not all(outcome(run, "plain", BUGS.index(bug), *how)[0] for how in ALL)


# Arguments of the entry points; F is an array of floats, each a heap block of its own.
SANITIZED = [
    ("kNone", "reverse(F(256), F(256), F(4), 256, 3, bug)", ""),
    ("kNone", "vectors(F(132), F(132), 132, bug)", ""),
    ("kNone", "trade(F(64), F(64), bug)", ""),
    ("kNone", "copy(F(324), F(320), 5, bug)", ""),
    ("kNone", "product(F(128), F(64), F(128), 0, bug)", ""),
    ("kReadPastTheEnd", "reverse(F(250), F(250), F(4), 250, 3, bug)", "heap-buffer-overflow"),
    ("kTileTooShort", "reverse(F(256), F(256), F(4), 256, 3, bug)", "heap-buffer-overflow"),
    ("kDynamicTileTooShort", "reverse(F(256), F(256), F(4), 256, 3, bug)", "heap-buffer-overflow"),
    ("kMisalignedVector", "vectors(F(132), F(132), 132, bug)", "misaligned address"),
]  # fmt: skip


@pytest.mark.parametrize(("bug", "call", "text"), SANITIZED)
def test_sanitizers_name_the_line(bug: str, call: str, text: str) -> None:
    """In a process of its own, without torch: a sanitizer's finding ends it."""
    library = build.build([SOURCE], "asan")
    code = (
        "import ctypes, sys\n"
        f"library, bug = ctypes.CDLL({str(library)!r}), {BUGS.index(bug)}\n"
        "F = lambda n: (ctypes.c_float * n)()\n"
        f"sys.exit(library.planted_{call})"
    )
    answer = subprocess.run(
        [sys.executable, "-S", "-c", code],
        # Python's own allocator has no room between blocks in which an overrun would show.
        env={**build.sanitizer_environment(), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
    )
    if not text:
        assert answer.returncode == 0, answer.stderr[-3000:]
    else:
        assert answer.returncode != 0
        assert text in answer.stderr and "planted.cu" in answer.stderr, answer.stderr[-3000:]
