"""kill -9 of worker processes at random times: the run ends with the same weights."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from typing import Any

from lstm_np import get_backend
from lstm_np.checkpoints import Every
from lstm_np.kernels.cpu.remote import TEAM
from lstm_np.training import Place, run
from lstm_np.training.reporters import Reporter
from lstm_np.training.run import Care
from tests.campaigns.support import Campaign
from tests.training.stopped import kept, small


class Killing(Reporter):
    """Kills a worker, where there is one, at a random time within the steps to come."""

    def __init__(self, campaign: Campaign | None) -> None:
        self.campaign, self.done = campaign, set[int]()

    def step(self, step: Any) -> None:
        campaign = self.campaign
        if campaign is None or campaign.counts["workers killed"] >= campaign.budget:
            return
        for worker in list(TEAM._workers):
            pid = worker.process.pid
            if worker.useful and pid not in self.done:
                self.done.add(pid)
                campaign.counts["workers killed"] += 1
                threading.Timer(campaign.random.uniform(0, 0.02), _kill, (pid,)).start()


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def workers(campaign: Campaign) -> None:
    """Runs with one worker process, killed each time that it has answered, until so many were killed as asked for."""
    whole = _trained(campaign, None)
    while campaign.counts["workers killed"] < campaign.budget:
        before = campaign.counts["workers killed"]
        found = _trained(campaign, campaign)
        campaign.counts["runs"] += 1
        different = [part for part in whole if found[part] != whole[part]]
        killed = campaign.counts["workers killed"] - before
        campaign.check(not different, f"a run with {killed} workers killed: {', '.join(different)} differ")
        if not campaign.check(killed > 0, "no worker to kill in a run"):
            break


def _trained(campaign: Campaign, killing: Campaign | None) -> Any:
    out = campaign.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    recipe = small(
        data={"limit_train": 1000},
        model={"hidden_size": 64},
        train={"batch_size": 125, "epochs": 150 if campaign.budget > 10 else 40},
    )
    place = Place(get_backend("numpy", threads=2), out=out)
    run(recipe, place, Killing(killing), care=Care(Every.parse("1h")))
    return kept(out)
