"""kill -9 while checkpoints are written and while a run is resumed: the next resume verifies and ends the same."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from lstm_np.checkpoints import CheckpointError, Checkpoints
from tests.campaigns.support import Campaign, Tap, fork, wait
from tests.training.stopped import begin, go_on, kept, small

EVERY = "1"  # a checkpoint after every step: most of the time goes into saving


def kills(campaign: Campaign) -> None:
    """Kills, half at named points of the calls that write files, half at random times, until as many runs as the budget
    were resumed from a checkpoint; each fourth run is killed once more while it is resumed."""
    recipe, out = small(), campaign.folder / "run"
    seconds = 0.0
    for _ in range(2):  # the first one is slower
        shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        begin(recipe, out, EVERY)
        seconds = time.perf_counter() - began
    whole = kept(out)
    points = _points(campaign, recipe)
    campaign.measured["named points"] = len(points)
    trial = -1
    while campaign.counts["resumed from a checkpoint"] < campaign.budget:
        trial += 1
        shutil.rmtree(out, ignore_errors=True)
        named = trial % 2 == 0
        point = points[trial // 2 % len(points)] if named else None
        where = f"trial {trial}, " + (" ".join(point[0]) if point else "random time")
        saved = _killed(campaign, lambda: begin(recipe, out, EVERY), out, point, seconds)
        if trial % 4 == 3 and Checkpoints(out / "checkpoints").files():
            _killed(campaign, lambda: go_on(out, EVERY), out, None, seconds)
            campaign.counts["killed again while it was resumed"] += 1
        campaign.counts["runs"] += 1
        try:
            step = Checkpoints(out / "checkpoints").newest(lambda line: campaign.failures.append(line)).position.step
        except CheckpointError:
            step = -1
        campaign.check(step >= saved, f"{where}: step {saved} was saved, step {step} is there")
        try:
            if step >= 0:
                go_on(out, EVERY)
                campaign.counts["resumed from a checkpoint"] += 1
            else:
                begin(recipe, out, EVERY)
                campaign.counts["killed before the first checkpoint, begun anew"] += 1
            found: Any = kept(out)
        except Exception as error:
            found = dict.fromkeys(whole, repr(error))
            campaign.failures.append(f"{where}: {error!r}")
        different = [part for part in whole if found[part] != whole[part]]
        left = [path.name for path in out.rglob("*.part")]
        campaign.check(not different and not left, f"{where}: {', '.join(different)} differ; {left} left over")


def _points(campaign: Campaign, recipe: Any) -> list[tuple[tuple[str, str, str], int]]:
    """The points of a run, call, file and when, and how often it comes by each."""
    seen: dict[tuple[str, str, str], int] = {}
    out = campaign.folder / "run"
    shutil.rmtree(out, ignore_errors=True)

    def note(*point: str) -> None:
        seen[point] = seen.get(point, 0) + 1  # type: ignore[index]

    with Tap(campaign.folder, note):
        begin(recipe, out, EVERY)
    return sorted(seen.items())


def _killed(campaign: Campaign, train: Any, out: Path, point: Any, seconds: float) -> int:
    """The last step that a process has saved that was killed at a point, or after a random time; -1 for none."""
    reading, writing = os.pipe()
    which = campaign.random.randint(1, point[1]) if point else 0

    def body() -> None:
        os.close(reading)
        write = Checkpoints.write

        def saved(self: Checkpoints, checkpoint: Any) -> Path:
            path = write(self, checkpoint)
            real_write(writing, b"%d\n" % checkpoint.position.step)
            return path

        real_write = os.write
        Checkpoints.write = saved  # type: ignore[method-assign]
        passed = 0

        def kill(*here: str) -> None:
            nonlocal passed
            if point and here == point[0]:
                passed += 1
                if passed == which:
                    os.kill(os.getpid(), signal.SIGKILL)

        with Tap(out, kill):
            train()

    pid = fork(body)
    os.close(writing)
    if not point:
        time.sleep(campaign.random.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
    status = wait(pid)
    if status == 128 + signal.SIGKILL:
        campaign.counts["killed"] += 1
        campaign.counts["killed at a named point" if point else "killed at a random time"] += 1
    else:
        campaign.counts["ended before it was killed"] += 1
    with os.fdopen(reading) as lines:
        return max((int(line) for line in lines.read().split()), default=-1)
