"""One HTTP(S) request: time limits that hold, redirects to https only, certificates always checked.

Imported only when something is downloaded, because the network modules are slow to import.  urllib's own timeout limits
each read but not the whole transfer: a server that sends a byte every few seconds would keep it busy forever.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from lstm_np.data.limits import Limits, RefusedAddressError

# exceptions that a request, or reading its response, may raise
FAILURES = (RefusedAddressError, OSError, http.client.HTTPException, ValueError)


def describe(error: BaseException) -> str:
    """A one-line message for an exception of `FAILURES`."""
    if isinstance(error, urllib.error.HTTPError):
        with suppress(OSError):
            error.close()
        return f"HTTP {error.code} {' '.join(str(error.reason).split())}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return describe(error.reason)
    text = " ".join(str(error).split())
    return text or type(error).__name__


def is_loopback(url: str) -> bool:
    """True for plain http to this very machine, the one case where http is allowed."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname == "127.0.0.1"


def open_url(url: str, limits: Limits, deadline: float, method: str = "GET") -> http.client.HTTPResponse:
    """The open response to one request, to be closed by the caller.

    Every read of the response ends within `limits.read` seconds and at `deadline` (time.monotonic()) with TimeoutError.
    Proxies are taken from the environment.  Raises RefusedAddressError for an address or a redirect that is not https
    (http://127.0.0.1 is allowed where it was asked for), and OSError or http.client.HTTPException for any other failure
    of the transfer: `FAILURES`.
    """
    loopback = is_loopback(url)
    if urlsplit(url).scheme != "https" and not loopback:
        raise RefusedAddressError(f"{url} is not an https address")
    handlers: list[urllib.request.BaseHandler] = [_Redirects(), _Http(limits, deadline), _Https(limits, deadline)]
    if loopback:
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "lstm_np"})
    remaining = max(deadline - time.monotonic(), 0.001)
    return urllib.request.build_opener(*handlers).open(request, timeout=min(limits.connect, remaining))


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        stays_here = is_loopback(req.full_url) and is_loopback(newurl)
        if urlsplit(newurl).scheme != "https" and not stays_here:
            raise RefusedAddressError(f"redirected to {newurl}, which is not an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TimedReader(io.RawIOBase):
    """The bytes of a socket, each read within the read limit and the deadline."""

    def __init__(self, sock: socket.socket, limits: Limits, deadline: float) -> None:
        self._sock, self._limits, self._deadline = sock, limits, deadline
        self._bytes = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("too slow: the time limit is used up")
        self._sock.settimeout(min(self._limits.read, remaining))
        try:
            return self._bytes.readinto(buffer)
        except TimeoutError:
            if remaining <= self._limits.read:
                raise TimeoutError("too slow: the time limit is used up") from None
            raise TimeoutError(f"no answer for {self._limits.read:g} s") from None

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _TimedSocket:
    """The part of the socket interface that http.client uses to read a response."""

    def __init__(self, sock: socket.socket, limits: Limits, deadline: float) -> None:
        self._reader = _TimedReader(sock, limits, deadline)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader)


def _timed(connection: type[http.client.HTTPConnection], limits: Limits, deadline: float) -> Any:
    """A connection class whose responses are read through `_TimedReader`."""

    def respond(sock: socket.socket, *args: Any, **keywords: Any) -> http.client.HTTPResponse:
        timed: Any = _TimedSocket(sock, limits, deadline)
        return http.client.HTTPResponse(timed, *args, **keywords)

    return type("TimedConnection", (connection,), {"response_class": staticmethod(respond)})


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limits: Limits, deadline: float) -> None:
        super().__init__()
        self._connection = _timed(http.client.HTTPConnection, limits, deadline)

    def http_open(self, req: Any) -> Any:
        return self.do_open(self._connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limits: Limits, deadline: float) -> None:
        super().__init__()
        connection = _timed(http.client.HTTPSConnection, limits, deadline)
        self._connection = functools.partial(connection, context=ssl.create_default_context())

    def https_open(self, req: Any) -> Any:
        return self.do_open(self._connection, req)
