"""scikit-learn's own checks of our estimators: which of them run, and how each ends, as a table.

python -m tests.sklearn_checks                             the table
python -m tests.sklearn_checks --write docs/sklearn.md     into the file, between its two marks
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from lstm_np.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler

BEGIN, END = "<!-- checks:begin -->", "<!-- checks:end -->"
ESTIMATORS = (LSTMClassifier, LSTMRegressor, SequenceScaler)
Found = Mapping[str, Counter[tuple[str, str]]]  # of each estimator's name: how often each (check, status) occurs


def checked(make: type) -> list[dict[str, object]]:
    """What `check_estimator` says of an estimator with its default parameters: a dict for each check."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as in scikit-learn's tests of its own networks
        results: list[dict[str, object]] = check_estimator(make(), on_skip=None, on_fail=None)
    return results


def counted(results: list[dict[str, object]]) -> Counter[tuple[str, str]]:
    """How often each check ended in each way, by (name, status); a check may run with several parameters."""
    return Counter((str(one["check_name"]), str(one["status"])) for one in results)


def table(found: Found) -> str:
    """Markdown: how many checks of each estimator ended in which way, and then each check."""
    names = list(found)
    lines = ["| check | " + " | ".join(f"`{name}`" for name in names) + " |", "|---|" + "---|" * len(names)]
    statuses = sorted({status for counts in found.values() for _, status in counts} | {"failed"}, key=_order)
    totals = [
        "<br>".join(f"{sum(n for (_, s), n in counts.items() if s == status)} {status}" for status in statuses)
        for counts in found.values()
    ]
    lines.append("| **all** | " + " | ".join(totals) + " |")
    for check in sorted({check for counts in found.values() for check, _ in counts}):
        cells = [
            ", ".join(_cell(status, counts[check, status]) for status in statuses if counts[check, status]) or "-"
            for counts in found.values()
        ]
        lines.append(f"| `{check}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _order(status: str) -> tuple[bool, str]:
    return status != "passed", status


def _cell(status: str, count: int) -> str:
    return status if count == 1 else f"{status} {count} times"


def listed(text: str) -> dict[str, Counter[tuple[str, str]]]:
    """What a document's table, as `table` writes it, says of each estimator."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        for line in text.split(BEGIN)[1].split(END)[0].splitlines()
        if line.startswith("| ")
    ]
    found: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in rows[0][1:]}
    for check, *cells in rows[2:]:
        for name, cell in zip(found, cells, strict=True):
            for part in cell.split(", ") if cell != "-" else ():
                status, _, times = part.partition(" ")
                found[name][check, status] += int(times.split(" ")[0]) if times else 1
    return found


def main() -> None:
    """Run all checks; print the table, or write it into a file."""
    parser = argparse.ArgumentParser(prog="python -m tests.sklearn_checks", description=__doc__.split("\n")[0])
    parser.add_argument("--write", metavar="FILE", help="put the table into FILE, between its marks")
    arguments = parser.parse_args()
    text = table({f"{make.__name__}()": counted(checked(make)) for make in ESTIMATORS})
    text = f"scikit-learn {sklearn.__version__}, default parameters:\n\n{text}"
    if arguments.write is None:
        print(text)
        return
    path = Path(arguments.write)
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
