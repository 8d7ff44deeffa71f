"""The n-th call that writes a file fails, for every n: the older checkpoint is intact, and the run goes on from it."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

from lstm_np.checkpoints import Checkpoints
from lstm_np.errors import LstmNpError
from tests.campaigns.support import Campaign, Tap
from tests.training.stopped import begin, go_on, kept, small

FAULTS = ("EIO", "ENOSPC", "short write")


class Fault:
    """Lets the n-th call fail, once or from then on."""

    def __init__(self, kind: str, number: int, *, for_good: bool) -> None:
        self.kind, self.number, self.for_good, self.calls = kind, number, for_good, 0

    def __call__(self, call: str, file: str, when: str) -> Any:
        if when != "before" or file == "lock":
            return None
        self.calls += 1
        if self.calls != self.number and not (self.for_good and self.calls > self.number):
            return None
        if self.kind == "short write":
            return "short" if call == "write" else None
        number = getattr(errno, self.kind)
        raise OSError(number, os.strerror(number))


def io_faults(campaign: Campaign) -> None:
    """A run that goes on after step 6 of 12 meets the fault; then it goes on without.  The budget: of calls, from the
    first on; the sweep is complete when it has more."""
    recipe, begun, out = small(), campaign.folder / "begun", campaign.folder / "run"
    begin(recipe, campaign.folder / "whole", "2")
    whole = kept(campaign.folder / "whole")
    begin(recipe, begun, "2", step=6)
    shutil.copytree(begun, out)
    counting = Fault("short write", 0, for_good=False)
    with Tap(campaign.folder, counting):
        go_on(out, "2")
    campaign.measured["calls of the run"] = counting.calls
    numbers = range(1, counting.calls + 1)
    if campaign.budget < counting.calls:
        numbers = sorted(campaign.random.sample(numbers, campaign.budget))  # type: ignore[assignment]
    for number in numbers:
        for kind in FAULTS:
            for for_good in (False, True):
                shutil.rmtree(out)
                shutil.copytree(begun, out)
                where = f"{kind} at call {number}{' and after' if for_good else ''}"
                ended = _met(out, Fault(kind, number, for_good=for_good))
                campaign.counts[f"{kind}, {'for good' if for_good else 'once'}: {ended}"] += 1
                campaign.counts["trials"] += 1
                campaign.check(ended != "another exception", f"{where}: {ended}")
                damaged: list[str] = []
                step = Checkpoints(out / "checkpoints").newest(damaged.append).position.step
                campaign.check(step >= 6 and not damaged, f"{where}: step {step}, {damaged}")
                go_on(out, "2")
                found = kept(out)
                different = [part for part in whole if found[part] != whole[part]]
                campaign.check(not different, f"{where}: {', '.join(different)} differ")


def _met(out: Any, fault: Fault) -> str:
    """How a run ends that meets the fault, in words."""
    try:
        with Tap(out.parent, fault):
            go_on(out, "2")
    except (LstmNpError, OSError) as error:
        return "one line" if "\n" not in str(error) else "several lines"
    except Exception:  # whatever it is: a user would see a traceback, and the campaign fails
        return "another exception"
    return "went on"
