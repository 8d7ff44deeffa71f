"""Time limits of a download, and the error for a refused address; imports no network module."""

from __future__ import annotations

from dataclasses import dataclass

from lstm_np.errors import LstmNpError


@dataclass(frozen=True)
class Limits:
    """Seconds to wait: for a connection, for the next byte, and for one file with all its retries; rounds over the
    mirrors, and the mean pause in seconds between two rounds."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 300.0
    rounds: int = 2
    pause: float = 1.0


class RefusedAddressError(LstmNpError, ValueError):
    """An address that is not asked: not https, or a redirect that would leave https."""
