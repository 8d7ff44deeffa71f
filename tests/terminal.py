"""Signals as the programs of a terminal have them."""

from __future__ import annotations

import signal


def take_signals() -> None:
    """Take SIGINT and SIGHUP as a terminal's programs do: a shell lets what it starts in the background ignore some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
