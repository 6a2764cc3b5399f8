"""A bar that counts, for commands that report (done, count)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["counting"]


@contextmanager
def counting(show: bool, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar as a function of (done, count), or None where none is to be shown."""
    if not show:
        yield None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task(what)
        yield lambda done, count: bar.update(task, completed=done, total=count)
