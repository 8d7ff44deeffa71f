"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal): a long job finishes its step and saves; a second one stops it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; `number` is the signal's, so that the exit status can be 128 + number."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


class Interruption:
    """While it is entered, SIGINT, SIGTERM and SIGHUP end what is running with `Interrupted` - but inside `held()` the
    first one only sets `requested`, so that the work can reach a point where nothing is lost.  One that is ignored
    (SIGHUP under nohup, SIGINT in the background of a script) stays ignored.

    The previous handlers are restored at the end.  Outside the main thread, the only one that receives signals, it does
    nothing.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self) -> None:
        self.requested: int | None = None
        self._held = False
        self._before: dict[int, Any] = {}
        self._hook: Callable[[Any], object] = sys.unraisablehook

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in wanted}
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if sys.unraisablehook == self._unraisable:
            sys.unraisablehook = self._hook

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the first signal back: it sets `requested`; the second one raises.

        Raises Interrupted where one came before and its exception was lost, as it is where Python ignores exceptions or
        a library catches all of them.
        """
        if self.requested is not None:
            raise Interrupted(self.requested)
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def asked(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.requested is not None

    def _unraisable(self, lost: Any) -> None:
        """Say nothing of a signal whose exception is lost, as in callbacks of weak references: `held` raises it."""
        if not isinstance(lost.exc_value, Interrupted):
            self._hook(lost)

    def _handle(self, number: int, _: FrameType | None) -> None:
        first, self.requested = self.requested is None, number
        if not (self._held and first):
            raise Interrupted(number)
