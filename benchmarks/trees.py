"""Two trees of this repository side by side: the one that these files are in, and a commit in a temporary worktree."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT


@dataclass(frozen=True)
class Tree:
    """A folder with this repository's files.

    name      what to call it
    commit    the revision, in full
    changed   whether files of `lstm_np` differ from it
    borrowed  whether its benchmarks are this tree's, since its own have no probe
    """

    name: str
    path: Path
    commit: str
    changed: bool = False
    borrowed: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.commit[:9]}{', with changes' if self.changed else ''})"


def git(*arguments: str) -> str:
    """What git answers in this repository.  Raises ValueError, one line, where it cannot."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError:
        raise ValueError("git is not installed, and compare needs it") from None
    except subprocess.SubprocessError as error:
        said = " ".join((getattr(error, "stderr", "") or str(error)).split())
        raise ValueError(f"git {' '.join(arguments)}: {said}") from None
    return done.stdout.strip()


def this_tree() -> Tree:
    """The tree that these files are in, with its changes.  Raises ValueError outside a repository."""
    return Tree("this tree", ROOT, git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "lstm_np")))


@contextlib.contextmanager
def laid_out(commit: str) -> Iterator[Tree]:
    """A commit's tree in a temporary worktree, which is removed at the end.

    Where it has no probe of its own, this tree's `benchmarks` take the place of its own, and meet its `lstm_np`.
    Raises ValueError where there is no such commit.
    """
    try:
        found = git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    except ValueError:
        raise ValueError(f"no commit {commit!r} in this repository; git log lists them") from None
    with tempfile.TemporaryDirectory(prefix="lstm_np-compare-") as folder:
        path = Path(folder) / "tree"
        git("worktree", "add", "--detach", "--force", str(path), found)
        try:
            borrowed = not (path / "benchmarks" / "probe.py").exists()
            if borrowed:
                shutil.rmtree(path / "benchmarks", ignore_errors=True)
                leave_out = shutil.ignore_patterns("__pycache__", "results")
                shutil.copytree(ROOT / "benchmarks", path / "benchmarks", ignore=leave_out)
            yield Tree(commit, path.resolve(), found, borrowed=borrowed)
        finally:
            git("worktree", "remove", "--force", str(path))
