"""A short version of each campaign, and that campaigns notice what they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns import flips as flips_campaign
from tests.campaigns.support import Campaign

ROOT = Path(__file__).parents[2]
NAMES = ("resuming", "kills", "workers", "io-faults", "signals", "flips", "not-finite")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="campaigns fork their processes")


@pytest.mark.parametrize("name", NAMES)
def test_a_short_campaign(name):
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns", name], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.startswith("{"), done.stderr
    record = json.loads(done.stdout)
    assert (record["failures"], done.returncode) == ([], 0)
    assert sum(record["counts"].values()) >= record["budget"]


def test_a_campaign_fails_where_damage_goes_unnoticed(tmp_path, monkeypatch):
    monkeypatch.setattr(flips_campaign, "read_weights", lambda path: None)
    campaign = Campaign(20, 0, tmp_path)
    flips_campaign.flips(campaign)
    assert len(campaign.failures) == 20
    assert campaign.failures[0].startswith("weights: bit ")


def test_the_committed_figures_are_of_campaigns_without_failures():
    results = [path for path in (ROOT / "tests/campaigns/results").glob("*.json") if path.stem != "costs"]
    assert {path.stem for path in results} == set(NAMES)
    for path in results:
        record = json.loads(path.read_text())
        assert (record["campaign"], record["failures"]) == (path.stem, [])
        assert record["command"].endswith("--budget full")
