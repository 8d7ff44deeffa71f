"""The report of a cell's check: plain values for programs, and 80 columns for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 80


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


@dataclass(frozen=True)
class GradientLine:
    """One gradient.

    error  the worst, relative to its largest entry; None where it has not the shape of its argument
    where  in words, where it is wrong: which gates, which steps
    kinds  what is wrong in it: "x", "h", "c", "W", "U", "b" or "b2"; a matrix that reads x and h has "W" and "U"
    """

    name: str
    ok: bool
    error: float | None
    shape: tuple[int, ...]
    where: str = ""
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """One reason in words: `key` for programs, the gradients that it explains, and the line to correct.

    equation, corrected  the line as an equation with its number, and in NumPy in the learner's names; "" where there
                         is no one line
    also                 sentences of other mistakes that give the same numbers
    """

    key: str
    text: str
    gradients: tuple[str, ...]
    equation: str = ""
    corrected: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellReport:
    """What `lstm_np.check_cell` found; true if every gradient is right, and `str` is the whole report.

    subject      the functions and their file
    forward      which cell the forward pass is
    standard     whether that is a cell of lstm_np
    arrays       how the arrays are laid out
    method       what the gradients are compared with: "complex step" or "central differences"
    limit        the largest relative error that is right
    gradients    one line per gradient
    reasons      the likely reasons, each checked: with it the equations give the wrong numbers, to rounding
    unexplained  the gradients that no reason explains
    places       sentences that say where a gradient that no reason explains is wrong
    notes        what else is worth knowing: gradients that are not returned, an order that surprises
    wrong_da     (step, gates) wherever what reaches the gates' pre-activations is wrong, if that can be had

    >>> def step_forward(x, h_prev, W, U, b):
    ...     h = np.tanh(W @ x + U @ h_prev + b)
    ...     return h, (x, h_prev, W, U, h)
    >>> def step_backward(dh, cache):
    ...     x, h_prev, W, U, h = cache
    ...     da = dh * (1 - h**2)
    ...     return W.T @ da, U.T @ da, da @ x.T, da @ h_prev.T, da.sum(axis=1, keepdims=True)
    >>> report = lstm_np.check_cell(step_forward, step_backward)
    >>> bool(report), report.method, report.reasons
    (True, 'complex step', ())
    """

    subject: str
    forward: str
    standard: bool
    arrays: str
    method: str
    checked: str
    limit: float
    gradients: tuple[GradientLine, ...]
    reasons: tuple[Explanation, ...]
    unexplained: tuple[str, ...]
    places: tuple[str, ...]
    notes: tuple[str, ...] = ()
    wrong_da: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every gradient is right."""
        return all(line.ok for line in self.gradients)

    def __bool__(self) -> bool:
        return self.ok

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, for `json.dumps`."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "forward": self.forward,
            "standard": self.standard,
            "arrays": self.arrays,
            "method": self.method,
            "limit": self.limit,
            "gradients": {
                line.name: {
                    "ok": line.ok,
                    "error": line.error,
                    "shape": list(line.shape),
                    "where": line.where,
                    "kinds": list(line.kinds),
                }
                for line in self.gradients
            },
            "reasons": [vars(reason) for reason in self.reasons],
            "unexplained": list(self.unexplained),
            "places": list(self.places),
            "notes": list(self.notes),
            "wrong_da": [{"step": step, "gates": list(gates)} for step, gates in self.wrong_da],
        }

    def __str__(self) -> str:
        lines = [self.subject]
        for label, text in (("forward", self.forward), ("arrays", self.arrays), ("checked", self.checked)):
            lines += _wrapped(text, f"{label:<9}", " " * 9)
        lines.append("")
        width = max(len(line.name) for line in self.gradients)
        for line in self.gradients:
            error = "-" if line.error is None else f"{line.error:.1e}"
            start = f"{line.name:<{width}}  {'right' if line.ok else 'wrong'}  {error:>7}  "
            lines += _wrapped(line.where, start, " " * len(start))
        lines.append("")
        lines += [line for note in self.notes for line in (*_wrapped(note, "", ""), "")]
        if self.ok:
            return "\n".join([*lines, "Right: every gradient agrees."])
        for k, reason in enumerate(self.reasons):
            label = "Likely reason" if len(self.reasons) == 1 else f"Likely reason {k + 1}"
            lines += _wrapped(f"{label}: {reason.text}", "", "")
            lines += _wrapped(reason.equation, "    ", " " * 10) if reason.equation else []
            lines += _wrapped(reason.corrected, "    in NumPy: ", " " * 14) if reason.corrected else []
            if reason.also:
                lines += _wrapped(f"The same numbers come from another mistake: {reason.also[0]}.", "    ", "    ")
        if self.reasons:
            made = "this gives" if len(self.reasons) == 1 else "these give"
            what = "the other wrong numbers" if self.unexplained else "every wrong number above"
            lines += _wrapped(f"Made on purpose in the equations, {made} {what} to rounding.", "", "")
        if self.unexplained:
            lines += [""] if self.reasons else []
            what = f"{listed(self.unexplained)}: no mistake that is known here gives these numbers."
            lines += [line for text in (what, *self.places) for line in _wrapped(text, "", "")]
        return "\n".join(lines)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    if not text:
        return [first.rstrip()]
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
