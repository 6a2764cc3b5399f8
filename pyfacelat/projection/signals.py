"""Signals during a run: the first one waits for the step to end, the second one acts at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a program that SIGTERM ended."""


class DeferredSignals:
    """Context manager that notes the first SIGINT or SIGTERM instead of acting on it.

    Noting it puts back the handlers from before, so that a second signal does what it always did.
    Python hands signals to the main thread alone; elsewhere this does nothing, and a signal that
    the program ignores, or handles outside of Python, is left alone.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        if error is None:
            self.deliver()

    def __bool__(self) -> bool:
        """Whether a signal waits."""
        return self._pending is not None

    def deliver(self) -> None:
        """Let the signal that waits do what it does without us; return if that returns.

        Raises:
            KeyboardInterrupt: SIGINT, unless the program handles it otherwise.
            SystemExit: SIGTERM, unless the program handles it otherwise; with the exit code a shell
                reports for it. Dying by the signal itself would leave the lock and temporary files.
        """
        number, self._pending = self._pending, None
        if number is None:
            return
        if number == signal.SIGTERM and signal.getsignal(number) is signal.SIG_DFL:
            raise SystemExit(TERMINATED)
        signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
