"""What differs between two runs: settings, data, machine, versions, and from which epoch on their results do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lstm_np.files import expand
from lstm_np.training.run_folder import CONFIG, METRICS_JSONL, WEIGHTS, RunFolderError
from lstm_np.weights import WeightsError, read_weights

TIMED = ("seconds", "samples_per_second")  # no two runs share these
NOTHING = "-"


class Difference(NamedTuple):
    """One thing that differs: what it is, "train.seed", and what it is in each run, in words."""

    what: str
    first: str
    second: str


def differences_of_runs(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> list[Difference]:
    """What differs between the runs in two folders: of what config.json says, then metrics, then weights.

    Raises RunFolderError for a folder without a run.
    """
    a, b = expand(first), expand(second)
    found = list(_of_values("", _read(a), _read(b)))
    return [*found, *_of_metrics(_epochs(a), _epochs(b)), *_of_weights(a, b)]


def table(found: list[Difference], first: str, second: str) -> str:
    """As columns; one line where nothing differs."""
    if not found:
        return f"{first} and {second}: nothing differs, not in one bit of the weights"
    head = Difference("", first, second)
    widths = [max(len(row[k]) for row in [head, *found]) for k in range(2)]
    return "\n".join(
        f"{row.what:<{widths[0]}}  {row.first:<{widths[1]}}  {row.second}".rstrip() for row in [head, *found]
    )


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunFolderError(f"{folder}: no {CONFIG}; expected the folder of a run") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise RunFolderError(f"{folder / CONFIG}: cannot be read ({reason})") from None
    if not isinstance(config, dict):
        raise RunFolderError(f"{folder / CONFIG}: not the configuration of a run")
    return config


def _of_values(name: str, a: Any, b: Any) -> Iterator[Difference]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _of_values(f"{name}.{key}" if name else key, a.get(key), b.get(key))
    elif a != b:
        yield Difference(name, _shown(a), _shown(b))


def _shown(value: Any) -> str:
    return NOTHING if value is None else value if isinstance(value, str) else json.dumps(value)


def _epochs(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / METRICS_JSONL).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []


def _of_metrics(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Iterator[Difference]:
    """The first epoch whose numbers differ, and the last of each."""
    for number, (one, other) in enumerate(zip(a, b, strict=False), 1):
        names = [name for name in one if name not in TIMED and one[name] != other.get(name)]
        plain = [name for name in names if not isinstance(one[name], list)]
        if names:
            yield from (Difference(f"epoch {number}, {n}", _shown(one[n]), _shown(other.get(n))) for n in plain)
            break
    if len(a) != len(b):
        yield Difference("epochs made", str(len(a)), str(len(b)))


def _of_weights(a: Path, b: Path) -> Iterator[Difference]:
    """The final weights, each tensor that differs with its largest value."""
    found = []
    for folder in (a, b):
        try:
            found.append(read_weights(folder / WEIGHTS)[0])
        except WeightsError:
            found.append({})
    one, other = found
    for name in [*one, *(name for name in other if name not in one)]:
        x, y = one.get(name), other.get(name)
        if x is None or y is None or x.shape != y.shape:
            yield Difference(
                f"weights, {name}", NOTHING if x is None else str(x.shape), NOTHING if y is None else str(y.shape)
            )
        elif x.tobytes() != y.tobytes():
            yield Difference(f"weights, {name}", "", f"differs by {abs(x.astype('float64') - y).max():.1e} at most")
