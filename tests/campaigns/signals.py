"""Signals at random times in every phase of the train command: the right exit status, and the run goes on exactly."""

from __future__ import annotations

import http.server
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lstm_np
from lstm_np import loop
from lstm_np.checkpoints import Checkpoints
from lstm_np.data import load
from lstm_np.data.digits import load_digits
from lstm_np.model import SequenceClassifier
from lstm_np.steps import ModelSteps
from lstm_np.train import main
from lstm_np.training.interruption import Interruption
from tests.campaigns.support import Campaign, fork, wait
from tests.training.stopped import kept

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RUN = (
    "--recipe mnist-lstm128 --dataset digits --limit-train 60 --validation 40 --hidden-size 4 --epochs 30 "
    "--batch-size 16 --threads 1 --out run"
)
EACH_STEP = f"{RUN} --checkpoint-every 1"
DOWNLOAD = "--recipe mnist-lstm128 --dataset mnist --hidden-size 4 --threads 1 --out run"
ENDED = "ended at "  # in the file of phases
AT_ONCE = 1e-3  # seconds after a signal was sent in which a command may still end before Python looks at it
OF_DOWNLOADS, PASTED, TWICE = 8, 20, 4  # each so-many-th trial is of a download, pastes the line, sends a second signal


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends a thousand bytes every few milliseconds, for longer than anybody waits."""

    def do_HEAD(self) -> None:
        """The size of a file of MNIST."""
        self.send_response(200)
        self.send_header("Content-Length", "9912422")
        self.end_headers()

    def do_GET(self) -> None:
        """Its beginning, slowly."""
        self.do_HEAD()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1000))
                time.sleep(0.005)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


def signals(campaign: Campaign) -> None:
    """Each trial sends a signal at a random time of a command; the line it prints ends like the unbroken run."""
    os.chdir(campaign.folder)
    os.environ.update(XDG_CACHE_HOME=str(campaign.folder / "cache"))
    os.environ.pop("LSTM_NP_DATA", None)
    load_digits()  # what it imports is imported once, or most signals would come then
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    mirrors = (f"http://127.0.0.1:{server.server_address[1]}/",)
    serving = fork(server.serve_forever)  # type: ignore[arg-type]
    try:
        seconds = {}
        for line in (RUN, EACH_STEP):
            shutil.rmtree("run", ignore_errors=True)
            began = time.perf_counter()
            campaign.check(wait(_command(line, mirrors)[0]) == 0, "the unbroken run has failed")
            seconds[line] = time.perf_counter() - began
        whole = kept(Path("run"))
        trial = 0
        while campaign.counts["signals"] < campaign.budget:
            trial += 1
            line = DOWNLOAD if trial % OF_DOWNLOADS == 0 else EACH_STEP if trial % 2 else RUN
            _trial(campaign, trial, line, seconds.get(line, 0.3), mirrors, whole)
    finally:
        os.kill(serving, signal.SIGTERM)
        wait(serving)


def _trial(campaign: Campaign, trial: int, line: str, seconds: float, mirrors: Any, whole: Any) -> None:
    shutil.rmtree("run", ignore_errors=True)
    shutil.rmtree("cache", ignore_errors=True)
    number = NUMBERS[trial % 3]
    pid, errors, phases = _command(line, mirrors)
    time.sleep(campaign.random.uniform(0, seconds))
    began = time.perf_counter()
    if os.waitpid(pid, os.WNOHANG)[0]:
        campaign.counts["ended before the signal, not counted"] += 1
        return
    os.kill(pid, number)
    sent = time.monotonic()
    twice = trial % TWICE == 0
    if twice:
        time.sleep(campaign.random.uniform(0, 0.01))
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    status = wait(pid)
    took = time.perf_counter() - began
    *told, last = phases.read_text().splitlines() or [""]
    if last.startswith(ENDED) and float(last.removeprefix(ENDED)) < sent + AT_ONCE:
        campaign.counts["ended before the signal, not counted"] += 1
        return
    said, phase = errors.read_text(), next(iter(told or [last]), "") or "before the command"
    phase = "after the command" if phase.startswith(ENDED) else phase
    where = f"trial {trial}, signal {number} in {phase}{', twice' if twice else ''}"
    campaign.counts["signals"] += 1
    campaign.counts[f"in phase: {phase}"] += 1
    campaign.largest(f"seconds to the end after {'two' if twice else 'one'}", took)
    campaign.check(status == 128 + number, f"{where}: exit status {status}: {said}")
    campaign.check("Traceback" not in said, f"{where}: {said}")
    if line == DOWNLOAD:
        whole_files = list(Path("cache").rglob("*.gz"))
        campaign.check(not whole_files and not Path("run").exists(), f"{where}: {whole_files} or a run are there")
        return
    lines = [part.splitlines()[0] for part in said.split("python -m ")[1:]]
    pasted = [line for line in lines if line.startswith("lstm_np.train --resume")]
    if Path("run/checkpoints").is_dir() and Checkpoints("run/checkpoints").files() and not pasted:
        pasted = ["lstm_np.train --resume run"]  # the signal came when it was not held: before training, or behind it
        campaign.counts["a run was begun and no line printed"] += 1
    again = shlex.split(pasted[0])[1:] if pasted else shlex.split(line)
    if pasted and trial % PASTED == 1:
        environment = {**os.environ, "PYTHONPATH": str(Path(lstm_np.__file__).parents[1])}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(f"python -m {pasted[0]}", shell=True, env=environment, capture_output=True, text=True)
        status, said = done.returncode, done.stderr
        campaign.counts["pasted into a shell"] += 1
    else:
        pid, errors, _ = _command(shlex.join(again), mirrors)
        status = wait(pid)
        said = errors.read_text()
    campaign.counts["resumed" if pasted else "begun anew"] += 1
    if campaign.check(status == 0, f"{where}: going on gave {status}: {said}"):
        found = kept(Path("run"))
        different = [part for part in whole if found[part] != whole[part]]
        campaign.check(not different, f"{where}: {', '.join(different)} differ")


def _command(line: str, mirrors: Any) -> tuple[int, Path, Path]:
    """A forked process that runs train: its number, what it says on stderr, the phases in which signals came."""
    errors, phases = Path("errors"), Path("phases")
    errors.write_text("")
    phases.write_text("")

    def body() -> int:
        for number, path in ((1, os.devnull), (2, str(errors))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
        load.load_dataset.__kwdefaults__["mirrors"] = mirrors
        load.load_digits = load_digits  # which takes its time, unlike what other campaigns have kept of it
        _tell_phases(phases)
        status = main(shlex.split(line))
        with phases.open("a") as file:
            file.write(f"{ENDED}{time.monotonic()}\n")
        return status

    return fork(body), errors, phases


def _tell_phases(path: Path) -> None:
    """Note the phase in which each signal comes."""
    import importlib

    run = importlib.import_module("lstm_np.training.run")
    phase = ["start"]

    def within(owner: Any, name: str, called: str, afterwards: str | None = None) -> None:
        function = getattr(owner, name)

        def told(*given: Any, **more: Any) -> Any:
            before, phase[0] = phase[0], called
            try:
                return function(*given, **more)
            finally:
                phase[0] = afterwards or before

        setattr(owner, name, told)

    within(load, "_cached_mnist", "download")
    within(run, "load_dataset", "load", "making the model")
    within(Checkpoints, "write", "save")
    within(SequenceClassifier, "evaluate_data", "evaluate")
    step = ModelSteps.step

    def first_step(self: Any, batch: Any, number: int) -> Any:
        before, phase[0] = phase[0], "first step" if number == 1 else phase[0]
        try:
            return step(self, batch, number)
        finally:
            phase[0] = before

    ModelSteps.step = first_step  # type: ignore[method-assign]
    within(loop, "train", "train", "end")
    handle = Interruption._handle

    def noting(self: Any, number: int, frame: Any) -> None:
        with path.open("a") as file:
            file.write(f"{phase[0]}\n")
        handle(self, number, frame)

    Interruption._handle = noting  # type: ignore[method-assign]
