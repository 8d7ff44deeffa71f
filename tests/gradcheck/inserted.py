"""Mistakes inserted in right cells, each in three conventions, and what the check says of them.

python -m tests.gradcheck.inserted                         the table, 5 seeds
python -m tests.gradcheck.inserted --write FILE            into FILE, between its two marks
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from threadpoolctl import threadpool_limits

import lstm_np

LEARNERS = Path(__file__).parent / "learners"
CONVENTIONS = {
    "cs231n": {"step": ("lstm_step_forward", "lstm_step_backward"), "sequence": ("lstm_forward", "lstm_backward")},
    "columns": {"step": ("step_forward", "step_backward"), "sequence": ("sequence_forward", "sequence_backward")},
    "per_gate": {"step": ("lstm_cell_forward", "lstm_cell_backward"), "sequence": ("lstm_forward", "lstm_backward")},
}
SEEDS = range(5)
BEGIN, END = "<!-- inserted:begin -->", "<!-- inserted:end -->"

Edit = tuple[str, str]


@dataclass(frozen=True)
class Inserted:
    """A mistake: the function pair in which it shows, the edits of each convention's file, and what is expected.

    keys   the reason's key in each convention: any of these names it rightly
    gates  the gates and steps in which it has to be located: (first wrong gates, last wrong step); of a mistake that
    step   leaves da right, () and the array
    """

    name: str
    level: str
    edits: dict[str, Sequence[Edit]]
    keys: dict[str, tuple[str, ...]] | tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    step: int = 0
    arrays: tuple[str, ...] = ()

    def keys_in(self, convention: str) -> tuple[str, ...]:
        """The keys that name it rightly in a convention."""
        return self.keys.get(convention, ()) if isinstance(self.keys, dict) else self.keys


def edits(
    cs231n: Edit | Sequence[Edit], columns: Edit | Sequence[Edit], per_gate: Edit | Sequence[Edit]
) -> dict[str, Sequence[Edit]]:
    """The edits of the three files; one or several each."""
    several = {"cs231n": cs231n, "columns": columns, "per_gate": per_gate}
    return {name: [one] if isinstance(one[0], str) else one for name, one in several.items()}  # type: ignore[dict-item, list-item]


NAMED = (
    Inserted(
        "the path through h_t is missing in dc",
        "step",
        edits(
            ("dc = dnext_c + dnext_h * o * (1 - np.tanh(next_c) ** 2)", "dc = dnext_c"),
            ("dc_total = dc + dh * o * (1 - tanh_c**2)", "dc_total = dc"),
            ("dc = dc_next + da_next * ot * (1 - np.tanh(c_next) ** 2)", "dc = dc_next"),
        ),
        ("dc: without dh_t * o * (1 - tanh(c_t)^2)",),
    ),
    Inserted(
        "two gates change places",
        "step",
        edits(
            ("(dai, daf, dao, dag)", "(dai, daf, dag, dao)"),
            ("np.vstack((df, di, dg, do))", "np.vstack((di, df, dg, do))"),
            [
                ("dWf = np.dot(dft, concat.T)", "dWf = np.dot(dit, concat.T)"),
                ("dWi = np.dot(dit, concat.T)", "dWi = np.dot(dft, concat.T)"),
            ],
        ),
        {
            "cs231n": ("da: gates as i f g o",),
            "columns": ("da: gates as i f g o",),
            "per_gate": ("gates moved", "returned in another's place"),
        },
    ),
    Inserted(
        "dc is not carried to the step before",
        "sequence",
        edits(
            ("lstm_step_backward(dh_t, dprev_c, cache[t])", "lstm_step_backward(dh_t, 0 * dprev_c, cache[t])"),
            ('carried_c = back["dc_prev"]', "carried_c = np.zeros_like(dc)"),
            ("caches[t])", "caches[t]); gradients['dc_prev'] = np.zeros((n_a, m))"),
        ),
        {
            "cs231n": ("loop: dc not carried",),
            "columns": ("loop: dc not carried", "zero"),  # dc_0, returned as it is carried, is zero too
            "per_gate": ("loop: dc not carried",),
        },
    ),
    Inserted(
        "a matrix is not transposed, or too often",
        "step",
        edits(
            ("dWx = x.T.dot(da)", "dWx = da.T.dot(x)"),
            ('"dW": da @ x.T', '"dW": x @ da.T'),
            ("da_prev = Wf[:, :n_a].T @ dft", "da_prev = Wf[:, :n_a] @ dft"),
        ),
        {
            "cs231n": ("transposed",),
            "columns": ("transposed",),
            "per_gate": ("dh_prev: not transposed of gate f",),
        },
    ),
    Inserted(
        "db is not summed over samples",
        "step",
        edits(
            ("db = da.sum(axis=0)", "db = da"),
            ('"db": da.sum(axis=1, keepdims=True)', '"db": da'),
            ("dbf = np.sum(dft, axis=1, keepdims=True)", "dbf = dft"),
        ),
        ("not summed",),
    ),
    Inserted(
        "h_t for h_{t-1} in dU",
        "step",
        edits(
            ("dWh = prev_h.T.dot(da)", "dWh = next_h.T.dot(da)"),
            ('"dU": da @ h_prev.T', '"dU": da @ h.T'),
            ("concat = np.concatenate((a_prev, xt))\n    dWf", "concat = np.concatenate((a_next, xt))\n    dWf"),
        ),
        ("dU: h_t for h_{t-1}",),
    ),
    Inserted(
        "tanh' where the forget gate needs sigmoid'",
        "step",
        edits(
            ("daf = df * f * (1 - f)", "daf = df * (1 - f**2)"),
            ("df = dc_total * c_prev * f * (1 - f)", "df = dc_total * c_prev * (1 - f**2)"),
            ("dft = dc * c_prev * ft * (1 - ft)", "dft = dc * c_prev * (1 - ft**2)"),
        ),
        ("da_f: tanh' for sigmoid'",),
    ),
    Inserted(
        "c_t for c_{t-1} in the forget gate's gradient",
        "step",
        edits(
            ("df = dc * prev_c", "df = dc * next_c"),
            ("df = dc_total * c_prev * f", "df = dc_total * c * f"),
            ("dft = dc * c_prev * ft", "dft = dc * c_next * ft"),
        ),
        ("df: c_t for c_{t-1}",),
    ),
    Inserted(
        "tanh' taken of c_t as if it were tanh(c_t)",
        "step",
        edits(
            ("(1 - np.tanh(next_c) ** 2)", "(1 - next_c**2)"),
            ("(1 - tanh_c**2)", "(1 - c**2)"),
            ("ot * (1 - np.tanh(c_next) ** 2)", "ot * (1 - c_next**2)"),
        ),
        ("dc: (1 - c_t^2) for (1 - tanh(c_t)^2)",),
    ),
    Inserted(
        "(1 - o) is forgotten",
        "step",
        edits(
            ("dao = do * o * (1 - o)", "dao = do * o"),
            ("do = dh * tanh_c * o * (1 - o)", "do = dh * tanh_c * o"),
            ("dot = da_next * np.tanh(c_next) * ot * (1 - ot)", "dot = da_next * np.tanh(c_next) * ot"),
        ),
        ("da_o: (1 - s) forgotten",),
    ),
    Inserted(
        "= for += in the sum over steps",
        "sequence",
        edits(
            ("dWx += dWx_t", "dWx = dWx_t"),
            ('dU += back["dU"]', 'dU = back["dU"]'),
            ("totals[name] += gradients[name]", "totals[name] = gradients[name]"),
        ),
        ("= for +=",),
    ),
    Inserted(
        "dh_{t-1} lacks the path through a gate",
        "step",
        edits(
            ("dprev_h = da.dot(Wh.T)", "dprev_h = da[:, H:].dot(Wh[:, H:].T)"),
            ('"dh_prev": U.T @ da', '"dh_prev": U[H:].T @ da[H:]'),
            ("dcct + Wo[:, :n_a].T @ dot", "dcct"),
        ),
        {
            "cs231n": ("dh_prev: without gate i",),
            "columns": ("dh_prev: without gate f",),
            "per_gate": ("dh_prev: without gate o",),
        },
    ),
)

# Mistakes of no kind that anybody has foreseen: where must be said, and no wrong reason.
OTHERS = (
    Inserted(
        "do takes sin(c_t) for tanh(c_t)",
        "step",
        edits(
            ("do = dnext_h * np.tanh(next_c)", "do = dnext_h * np.sin(next_c)"),
            ("do = dh * tanh_c", "do = dh * np.sin(c)"),
            ("dot = da_next * np.tanh(c_next)", "dot = da_next * np.sin(c_next)"),
        ),
        gates=("o",),
    ),
    Inserted(
        "c_{t-1} rounded to one digit in df",
        "step",
        edits(
            ("df = dc * prev_c", "df = dc * np.round(prev_c, 1)"),
            ("df = dc_total * c_prev", "df = dc_total * np.round(c_prev, 1)"),
            ("dft = dc * c_prev", "dft = dc * np.round(c_prev, 1)"),
        ),
        gates=("f",),
    ),
    Inserted(
        "1 - g^3 for 1 - g^2",
        "step",
        edits(
            ("(1 - g**2)", "(1 - g**3)"),
            ("(1 - g * g)", "(1 - g * g * g)"),
            ("(1 - cct**2)", "(1 - cct**3)"),
        ),
        gates=("g",),
    ),
    Inserted(
        "(1 - i)^2 for 1 - i",
        "step",
        edits(
            ("i * (1 - i)", "i * (1 - i) ** 2"),
            ("i * (1 - i)", "i * (1 - i) ** 2"),
            ("it * (1 - it)", "it * (1 - it) ** 2"),
        ),
        dict.fromkeys(CONVENTIONS, ("da_i: times (1 - i)",)),
        gates=("i",),
    ),
    Inserted(
        "o - 0.1 for o in dc",
        "step",
        edits(
            ("dnext_h * o * (1", "dnext_h * (o - 0.1) * (1"),
            ("dh * o * (1 -", "dh * (o - 0.1) * (1 -"),
            ("da_next * ot * (1 -", "da_next * (ot - 0.1) * (1 -"),
        ),
        gates=("i", "f", "g"),
    ),
    Inserted(
        "da of the forget gate is capped at 0.01",
        "step",
        edits(
            ("daf = df * f * (1 - f)", "daf = np.minimum(df * f * (1 - f), 0.01)"),
            ("df = dc_total * c_prev * f * (1 - f)", "df = np.minimum(dc_total * c_prev * f * (1 - f), 0.01)"),
            ("dft = dc * c_prev * ft * (1 - ft)", "dft = np.minimum(dc * c_prev * ft * (1 - ft), 0.01)"),
        ),
        gates=("f",),
    ),
    Inserted(
        "the candidate's da is taken from the first sample for all",
        "step",
        edits(
            ("dag = dg * (1 - g**2)", "dag = dg * (1 - g**2)\n    dag[1:] = dag[0]"),
            ("do = dh", "dg[:, 1:] = dg[:, :1]\n    do = dh"),
            ("dit = dc", "dcct[:, 1:] = dcct[:, :1]\n    dit = dc"),
        ),
        gates=("g",),
    ),
    Inserted(
        "dh_{t-1} is 0 for the first unit",
        "step",
        edits(
            ("dprev_h = da.dot(Wh.T)", "dprev_h = da.dot(Wh.T)\n    dprev_h[:, 0] = 0"),
            ('"dh_prev": U.T @ da', '"dh_prev": np.vstack((0 * dh[:1], (U.T @ da)[1:]))'),
            ("dxt = Wf", "da_prev[0] = 0\n    dxt = Wf"),
        ),
        arrays=("h",),
    ),
    Inserted(
        "0.001 x_t is added to dx_t",
        "step",
        edits(
            ("dx = da.dot(Wx.T)", "dx = da.dot(Wx.T) + 1e-3 * x"),
            ('"dx": W.T @ da', '"dx": W.T @ da + 1e-3 * x'),
            ("dc_prev = dc * ft", "dc_prev = dc * ft\n    dxt = dxt + 1e-3 * xt"),
        ),
        arrays=("x",),
    ),
    Inserted(
        "h_{t-1} of the next unit in dU",
        "step",
        edits(
            ("dWh = prev_h.T.dot(da)", "dWh = np.roll(prev_h, 1, axis=1).T.dot(da)"),
            ('"dU": da @ h_prev.T', '"dU": da @ np.roll(h_prev, 1, axis=0).T'),
            (
                "concat = np.concatenate((a_prev, xt))\n    dWf",
                "concat = np.concatenate((np.roll(a_prev, 1, axis=0), xt))\n    dWf",
            ),
        ),
        arrays=("U",),
    ),
    Inserted(
        "x_t squared in dW",
        "step",
        edits(
            ("dWx = x.T.dot(da)", "dWx = (x**2).T.dot(da)"),
            ('"dW": da @ x.T', '"dW": da @ (x**2).T'),
            ("concat = np.concatenate((a_prev, xt))\n    dWf", "concat = np.concatenate((a_prev, xt**2))\n    dWf"),
        ),
        arrays=("W",),
    ),
    Inserted(
        "the largest in place of the sum in db",
        "step",
        edits(
            ("db = da.sum(axis=0)", "db = da.max(axis=0)"),
            ("da.sum(axis=1, keepdims=True)", "da.max(axis=1, keepdims=True)"),
            ("dbo = np.sum(dot,", "dbo = np.max(dot,"),
        ),
        arrays=("b",),
    ),
    Inserted(
        "0.01 dc_t is added to dc_{t-1}",
        "step",
        edits(
            ("dprev_c = dc * f", "dprev_c = dc * f + 0.01 * dnext_c"),
            ('"dc_prev": dc_total * f', '"dc_prev": dc_total * f + 0.01 * dc'),
            ("dc_prev = dc * ft", "dc_prev = dc * ft + 0.01 * dc_next"),
        ),
        arrays=("c",),
    ),
    Inserted(
        "step 3's carried dc is halved",
        "sequence",
        edits(
            ("dh_t = dh", "dprev_c = dprev_c * (0.5 if t == 2 else 1)\n        dh_t = dh"),
            ("back = step", "carried_c = carried_c * (0.5 if t == 2 else 1)\n        back = step"),
            ("gradients = lstm_cell", "dc_prev = dc_prev * (0.5 if t == 2 else 1)\n        gradients = lstm_cell"),
        ),
        gates=("i", "f", "g"),
        step=3,
    ),
    Inserted(
        "step 2 gets no dh from the loss",
        "sequence",
        edits(
            ("dh_t = dh[:, t, :] + dprev_h", "dh_t = dh[:, t, :] * (t != 1) + dprev_h"),
            ("dh[t] + carried_h", "dh[t] * (t != 1) + carried_h"),
            ("da[:, :, t] + da_prev", "da[:, :, t] * (t != 1) + da_prev"),
        ),
        gates=("i", "f", "o", "g"),
        step=2,
    ),
    Inserted(
        "the carried dh is dropped between steps 3 and 2",
        "sequence",
        edits(
            ("dh_t = dh[:, t, :] + dprev_h", "dh_t = dh[:, t, :] + dprev_h * (t != 1)"),
            ("dh[t] + carried_h", "dh[t] + carried_h * (t != 1)"),
            ("da[:, :, t] + da_prev", "da[:, :, t] + da_prev * (t != 1)"),
        ),
        gates=("i", "f", "o", "g"),
        step=2,
    ),
    Inserted(
        "the carried dc is clipped at 0.1",
        "sequence",
        edits(
            ("dx[:, t, :] = dx_t", "dx[:, t, :] = dx_t\n        dprev_c = np.clip(dprev_c, -0.1, 0.1)"),
            ('carried_c = back["dc_prev"]', 'carried_c = np.clip(back["dc_prev"], -0.1, 0.1)'),
            ('dc_prev = gradients["dc_prev"]', 'dc_prev = np.clip(gradients["dc_prev"], -0.1, 0.1)'),
        ),
        gates=("i", "f", "g"),
        step=3,
    ),
    Inserted(
        "the carried dh is scaled by 1.1",
        "sequence",
        edits(
            ("dh_t = dh[:, t, :] + dprev_h", "dh_t = dh[:, t, :] + 1.1 * dprev_h"),
            ("dh[t] + carried_h", "dh[t] + 1.1 * carried_h"),
            ("da[:, :, t] + da_prev", "da[:, :, t] + 1.1 * da_prev"),
        ),
        gates=("i", "f", "o", "g"),
        step=3,
    ),
    Inserted(
        "dW takes the mean of this step's x and the step before's",
        "sequence",
        edits(
            (
                "dWx += dWx_t",
                "before, now = cache[max(t - 1, 0)][0], cache[t][0]\n"
                "        dWx += dWx_t + 0.5 * (before - now).T @ (np.linalg.pinv(now.T) @ dWx_t)",
            ),
            (
                'dW += back["dW"]',
                'before, now = steps[max(t - 1, 0)]["x"], steps[t]["x"]\n'
                '        dW += back["dW"] @ np.linalg.pinv(now.T) @ (0.5 * (before + now)).T',
            ),
            (
                "totals[name] += gradients[name]",
                "before, now, part = x[:, :, max(t - 1, 0)], x[:, :, t], gradients[name]\n"
                "            if name[1] == 'W':\n"
                "                mixed = part[:, n_a:] @ np.linalg.pinv(now.T) @ (0.5 * (before + now)).T\n"
                "                part = np.hstack((part[:, :n_a], mixed))\n"
                "            totals[name] += part",
            ),
        ),
        arrays=("W",),
    ),
    Inserted(
        "two mistakes at once: c_t for c_{t-1} in df, and c_t for tanh(c_t) in do",
        "step",
        edits(
            [("df = dc * prev_c", "df = dc * next_c"), ("do = dnext_h * np.tanh(next_c)", "do = dnext_h * next_c")],
            [("df = dc_total * c_prev * f", "df = dc_total * c * f"), ("do = dh * tanh_c", "do = dh * c")],
            [
                ("dft = dc * c_prev * ft", "dft = dc * c_next * ft"),
                ("dot = da_next * np.tanh(c_next)", "dot = da_next * c_next"),
            ],
        ),
        dict.fromkeys(CONVENTIONS, ("df: c_t for c_{t-1}", "do: c_t for tanh(c_t)")),
        gates=("f", "o"),
    ),
)


def learner(convention: str, changes: Sequence[Edit] = ()) -> ModuleType:
    """A convention's file as a module, each edit made at the one place that it fits."""
    path = LEARNERS / f"{convention}.py"
    source = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {path.name}"
        source = source.replace(old, new)
    module = ModuleType(convention)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def check(inserted: Inserted, convention: str, seed: int) -> lstm_np.CellReport:
    """What the check says of a mistake."""
    module = learner(convention, inserted.edits[convention])
    forward, backward = (getattr(module, name) for name in CONVENTIONS[convention][inserted.level])
    return lstm_np.check_cell(forward, backward, seed=seed)


def verdict(inserted: Inserted, convention: str, report: lstm_np.CellReport) -> str:
    """ "named", "located", "misnamed" or "missed"."""
    if report.ok:
        return "missed"
    keys = inserted.keys_in(convention)
    found = {reason.key for reason in report.reasons}
    if found:
        several = inserted in OTHERS
        right = found <= set(keys) and (not several or not report.unexplained)
        return "named" if right else "misnamed"
    return "located" if located(inserted, report) else "missed"


def located(inserted: Inserted, report: lstm_np.CellReport) -> bool:
    """Whether the report says the right gates and steps, or the right arrays where da is right."""
    wrong = dict(report.wrong_da)
    if not inserted.gates:
        arrays = {kind for line in report.gradients for kind in line.kinds}
        return not wrong and arrays == set(inserted.arrays)
    if not wrong:
        return False
    last = max(wrong)
    first_step = inserted.step or 4
    return last == first_step and set(wrong[last]) == set(inserted.gates)


def verdicts_of(number: int, seeds: Sequence[int]) -> dict[str, list[str]]:
    """The verdicts on a mistake, of NAMED and then OTHERS, in every convention."""
    inserted = (*NAMED, *OTHERS)[number]
    return {
        convention: [verdict(inserted, convention, check(inserted, convention, seed)) for seed in seeds]
        for convention in CONVENTIONS
    }


def rows(seeds: Sequence[int]) -> Iterator[tuple[Inserted, dict[str, list[str]]]]:
    """Each mistake with its verdicts in every convention, computed on all cores."""
    every = (*NAMED, *OTHERS)
    with ProcessPoolExecutor(initializer=threadpool_limits, initargs=(1,)) as pool:
        yield from zip(every, pool.map(partial(verdicts_of, seeds=seeds), range(len(every))), strict=True)


def table(seeds: Sequence[int]) -> str:
    """The table in Markdown."""
    lines = ["| inserted | in | cs231n | columns | per gate |", "|---|---|---|---|---|"]
    counts = {"named": [0, 0], "located": [0, 0], "misnamed": [0, 0], "missed": [0, 0]}
    for inserted, verdicts in rows(seeds):
        cells = []
        for each in verdicts.values():
            kinds = sorted(set(each), key=each.index)
            cells.append(", ".join(f"{kind} {each.count(kind)}/{len(each)}" for kind in kinds))
            for kind in each:
                counts[kind][inserted in OTHERS] += 1
        lines.append(f"| {inserted.name} | {inserted.level} | {' | '.join(cells)} |")
    command = "`python -m tests.gradcheck.inserted --write docs/check-your-cell.md`"
    lines += ["", f"{datetime.date.today()}, lstm_np {lstm_np.__version__}, {command}:  "]
    for k, title in enumerate((f"{len(NAMED)} known mistakes", f"{len(OTHERS)} others")):
        shown = ", ".join(f"{count[k]} {kind}" for kind, count in counts.items())
        lines.append(f"{title} x {len(CONVENTIONS)} conventions x {len(seeds)} seeds: {shown}.  ")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gradcheck.inserted", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many [5]")
    parser.add_argument("--write", metavar="FILE", help="put the table into FILE, between its marks")
    arguments = parser.parse_args()
    start = time.perf_counter()
    text = table(range(arguments.seeds))
    print(text)
    print(f"\n{time.perf_counter() - start:.0f} s")
    if arguments.write:
        path = Path(arguments.write)
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
