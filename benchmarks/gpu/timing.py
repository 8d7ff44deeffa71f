"""Durations of work on a stream of the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROUNDS = 5


def seconds_of(xp: Any, stream: Any, work: Callable[[], None], repeats: int) -> float:
    """The least mean duration of `work` over some rounds of `repeats` in a row, launched as one graph.

    Without a graph (where capture is refused) the host's launches may be what is measured.
    """
    with stream:
        work()  # kernels are loaded, which a capture does not allow
        stream.synchronize()
        launch = _as_graph(stream, work, repeats)
        rounds = []
        for _ in range(ROUNDS):
            begun, ended = xp.cuda.Event(), xp.cuda.Event()
            begun.record(stream)
            launch()
            ended.record(stream)
            ended.synchronize()
            rounds.append(xp.cuda.get_elapsed_time(begun, ended) / 1e3 / repeats)
    return min(rounds)


def _as_graph(stream: Any, work: Callable[[], None], repeats: int) -> Callable[[], None]:
    def one_by_one() -> None:
        for _ in range(repeats):
            work()

    try:
        stream.begin_capture()
        try:
            one_by_one()
        finally:
            graph = stream.end_capture()
    except (RuntimeError, NotImplementedError):
        return one_by_one  # work that cannot be captured: the time of its launches is then counted too, never left out
    return lambda: graph.launch(stream)
