"""Single bits of checkpoints and weights files, flipped: every such file is refused."""

from __future__ import annotations

from lstm_np.checkpoints import Checkpoints, read_checkpoint
from lstm_np.weights import WeightsError, read_weights
from tests.campaigns.support import Campaign
from tests.training.stopped import begin, small


def flips(campaign: Campaign) -> None:
    """As many flips of each kind of file as the budget; each second one is in the file's header."""
    out = campaign.folder / "run"
    begin(small(), out)
    files = {
        "checkpoint": (Checkpoints(out / "checkpoints").files()[-1], read_checkpoint),
        "weights": (out / "weights.safetensors", read_weights),
    }
    for kind, (path, read) in files.items():
        content = bytearray(path.read_bytes())
        read(path)
        header = 8 + int.from_bytes(content[:8], "little")
        for trial in range(campaign.budget):
            bit = campaign.random.randrange(8 * (header if trial % 2 else len(content)))
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            content[bit // 8] ^= 1 << bit % 8
            campaign.counts[f"{kind} files"] += 1
            try:
                read(path)
                campaign.failures.append(f"{kind}: bit {bit} of {8 * len(content)} was not noticed")
            except WeightsError as error:
                campaign.check("\n" not in str(error), f"{kind}: bit {bit}: {error}")
        path.write_bytes(content)
