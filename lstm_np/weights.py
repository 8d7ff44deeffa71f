"""Weights on disk: safetensors files, written atomically and checked before they are believed.

A file is written to a temporary name in the same folder, flushed to the disk, and then renamed, so that a reader sees
either the old file or the whole new one.  The header is read and compared with what is expected before any tensor is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.extras import load as load_package
from lstm_np.files import expand, write_atomically

FORMAT = 1
KEY = "lstm_np"  # one key in the metadata, since safetensors writes several in varying order: same weights, same bytes
HEADER_LIMIT = 1 << 20  # bytes; ours take a few KiB, so a larger one is not ours


class WeightsError(LstmNpError, ValueError):
    """A weights file that cannot be used; one line: which file, what was found, what was expected."""


def write_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], config: Mapping[str, object]
) -> None:
    """Write named NumPy arrays and a model's configuration to one safetensors file.  Raises OSError."""
    save = load_package("safetensors.numpy", "", "weights files need").save

    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_atomically(path, save(contiguous, metadata={KEY: json.dumps({"format": FORMAT, "config": dict(config)})}))


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """(tensors, configuration) of a file that `write_weights` wrote.  Raises WeightsError."""
    try:
        content = expand(path).read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: no such weights file; train writes one, weights.safetensors in its run folder"
        ) from error
    except ValueError as error:
        raise WeightsError(str(error)) from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); expected a weights.safetensors file") from error
    SafetensorError = load_package("safetensors", "", "weights files need").SafetensorError
    load = load_package("safetensors.numpy", "", "weights files need").load

    config = _config(path, content)
    try:
        return load(content), config
    except (SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: damaged safetensors file ({reason}); train again or restore a copy") from error


def _config(path: str | os.PathLike[str], content: bytes) -> dict[str, object]:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or length > min(HEADER_LIMIT, len(content) - 8) or content[8:9] != b"{":
        raise WeightsError(
            f"{path}: not a safetensors file, {len(content)} bytes; expected the weights.safetensors of a run"
        )
    try:
        header = json.loads(content[8 : 8 + length])
        ours = json.loads(header.get("__metadata__", {}).get(KEY, "null"))
    except (ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path}: damaged safetensors header; train again or restore a copy") from error
    if not isinstance(ours, dict) or ours.get("format") != FORMAT or not isinstance(ours.get("config"), dict):
        raise WeightsError(
            f"{path}: a safetensors file, but not one of lstm_np's (no format {FORMAT!r} in its metadata)"
        )
    return ours["config"]


def check_shapes(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises WeightsError unless names and shapes are the expected ones."""
    for name in [*expected, *tensors]:
        found = tuple(tensors[name].shape) if name in tensors else None
        if name not in expected:
            raise WeightsError(f"{path}: tensor {name!r} {found} is not part of this model ({', '.join(expected)})")
        if found != tuple(expected[name]):
            raise WeightsError(f"{path}: tensor {name!r} has shape {found}, this model expects {tuple(expected[name])}")
