"""python -m tests.campaigns NAME [--budget N] [--seed N] [--out FOLDER]: one campaign, or all of them.

Each prints its figures and, with --out, writes them to NAME.json there.  Exit status: 0 all trials came out as they
must, 1 some did not.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forked processes have one thread
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import functools
import json
import logging
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lstm_np.backends.cores import cpu_name
from lstm_np.data import load
from lstm_np.files import write_atomically
from lstm_np.training import curves
from lstm_np.training.environment import commit
from tests.campaigns.flips import flips
from tests.campaigns.io_faults import io_faults
from tests.campaigns.kills import kills
from tests.campaigns.not_finite import not_finite
from tests.campaigns.resuming import resuming
from tests.campaigns.signals import signals
from tests.campaigns.support import Campaign
from tests.campaigns.workers import workers
from tests.terminal import take_signals

# name -> what runs it, the budget of the committed figures, and that of the test suite
CAMPAIGNS: dict[str, tuple[Any, int, int]] = {
    "resuming": (resuming, 200, 4),
    "kills": (kills, 1000, 16),
    "workers": (workers, 100, 1),
    "io-faults": (io_faults, 100_000, 5),
    "signals": (signals, 200, 8),
    "flips": (flips, 1000, 50),
    "not-finite": (not_finite, 5, 1),
}
BUDGETS = ("full", "short")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m tests.campaigns", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "names", nargs="+", metavar="NAME", choices=[*CAMPAIGNS, "all"], help=f"{', '.join(CAMPAIGNS)}, all"
    )
    parser.add_argument("--budget", default="short", metavar="N", help="trials, or full or short [short]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn at random [0]")
    parser.add_argument("--out", metavar="FOLDER", help="where NAME.json goes")
    arguments = parser.parse_args(argv)
    if arguments.budget not in BUDGETS and not arguments.budget.isdecimal():
        parser.error(f"--budget must be a number, full or short, found {arguments.budget!r}")
    take_signals()
    logging.disable(logging.WARNING)  # of workers that were lost on purpose
    curves.draw_curves = lambda *_: b""  # takes longer than these runs
    load.load_digits = functools.cache(load.load_digits)
    commit()
    names = CAMPAIGNS if "all" in arguments.names else arguments.names
    if arguments.out is not None:
        Path(arguments.out).mkdir(parents=True, exist_ok=True)  # before the first one has run
    here = Path.cwd()
    worst = 0
    for name in names:
        record = campaign_record(name, arguments.budget, arguments.seed)
        os.chdir(here)
        print(json.dumps(record, indent=1), flush=True)
        worst = max(worst, int(bool(record["failures"])))
        if arguments.out is not None:
            write_atomically(Path(arguments.out, f"{name}.json"), (json.dumps(record, indent=1) + "\n").encode())
    return worst


def campaign_record(name: str, budget: str, seed: int) -> dict[str, Any]:
    """Run one campaign in a folder of its own; its figures."""
    function, full, short = CAMPAIGNS[name]
    number = {"full": full, "short": short}.get(budget) or int(budget)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing here loses power
    folder = Path(tempfile.mkdtemp(prefix="lstm_np-campaign-", dir=memory))
    campaign, began = Campaign(number, seed, folder), time.perf_counter()
    try:
        function(campaign)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "campaign": name,
        "command": f"python -m tests.campaigns {name} --budget {budget}" + (f" --seed {seed}" if seed else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": cpu_name(),
        **commit(),
        "seconds": round(time.perf_counter() - began, 1),
        "budget": number,
        "seed": seed,
        "counts": dict(sorted(campaign.counts.items())),
        "measured": campaign.measured,
        "failures": campaign.failures[:20],
        "failed": len(campaign.failures),
    }


if __name__ == "__main__":
    sys.exit(main())
