"""Named arrays and a configuration on disk: safetensors files, written atomically, checked before they are believed.

A file is written to a temporary name in the same folder, flushed to the disk, and then renamed, so that a reader sees
either the old file or the whole new one.  The header is read and compared with what is expected before any array is.

Format 2.  The metadata of the safetensors header has one key, "lstm_np" (safetensors writes several in varying order),
with a JSON object, in ASCII, its keys sorted, without spaces::

    {"config": {...}, "format": 2, "kind": "weights" or "checkpoint", "sha256": "..."}

"sha256" is the SHA-256, in hexadecimal, of the content: of that object without "sha256", in the same form, and then,
by name in sorted order, of each array's JSON [name, dtype, shape] and its bytes, each part after its length as a 64-bit
little-endian number.  A changed bit anywhere in a file is noticed.  Format 1 had {"config", "format"} alone; its files
are still read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.extras import load as load_package
from lstm_np.files import expand, write_atomically

FORMAT = 2
KEY = "lstm_np"
HEADER_LIMIT = 100_000_000  # bytes: the limit of safetensors itself
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
CODES = {name: code for code, name in DTYPES.items()}
KINDS = {  # what a file is, and the dtypes it may hold
    "weights": ("F16", "F32", "F64"), "checkpoint": tuple(DTYPES), "trace": ("F32", "F64"),
}  # fmt: skip
_IN_A_RUN = "train writes one in its run folder"
_WRITTEN = {"weights": _IN_A_RUN, "checkpoint": _IN_A_RUN, "trace": "lstm_np.Trace.save writes one"}

Arrays = dict[str, np.ndarray]


class WeightsError(LstmNpError, ValueError):
    """A weights, checkpoint or trace file that cannot be used; one line: which, what was found, what was expected.

    >>> lstm_np.SequenceClassifier.load("no-such-file.safetensors")
    Traceback (most recent call last):
    lstm_np.weights.WeightsError: no-such-file.safetensors: no such weights file; train writes one in its run folder
    """


def write_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], config: Mapping[str, object]
) -> None:
    """Write named NumPy arrays and a model's configuration to one weights file; as `write_file`."""
    write_file(path, "weights", tensors, config)


def read_weights(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """(tensors, configuration) of a weights file, of this version or an earlier one.  Raises WeightsError."""
    return read_file(path, "weights")


def write_file(
    path: str | os.PathLike[str], kind: str, arrays: Mapping[str, np.ndarray], config: Mapping[str, object]
) -> None:
    """Write named NumPy arrays of any shapes and a configuration to one file, atomically.

    kind      one of `KINDS`, which lists the dtypes of its arrays
    config    plain values (JSON); NumPy's scalars become Python's

    The same content gives the same bytes.  Raises OSError, or ValueError for what such a file cannot hold.
    """
    save = load_package("safetensors.numpy", "", "weights files need").save

    try:
        plain = json.loads(json.dumps(dict(config), default=_plain))
    except TypeError as error:
        raise ValueError(f"{path}: the configuration cannot be written as JSON ({error})") from error
    stored = {name: _stored(path, kind, name, array) for name, array in arrays.items()}
    stated = {"config": plain, "format": FORMAT, "kind": kind}
    stated["sha256"] = content_sum(stated, stored)
    write_atomically(path, save(stored, metadata={KEY: _canonical(stated)}))


def read_file(path: str | os.PathLike[str], kind: str) -> tuple[Arrays, dict[str, Any]]:
    """(arrays, configuration) of a file that `write_file` wrote.  Raises WeightsError."""
    try:
        content = expand(path).read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such {kind} file; {_WRITTEN[kind]}") from error
    except ValueError as error:
        raise WeightsError(str(error)) from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); expected a {kind} file") from error
    SafetensorError = load_package("safetensors", "", "weights files need").SafetensorError
    load = load_package("safetensors.numpy", "", "weights files need").load

    header, stated = _header(path, content, kind)
    _check_statement(path, stated, kind)
    _check_dtypes(path, header, kind)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: damaged safetensors file ({reason}); {_REMEDY}") from error
    summed = {key: value for key, value in stated.items() if key != "sha256"}
    if stated["format"] > 1 and stated["sha256"] != content_sum(summed, arrays):
        raise WeightsError(f"{path}: damaged or changed since it was written, its SHA-256 is another; {_REMEDY}")
    return arrays, stated["config"]


def content_sum(stated: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of a file's content, as the top of this module says.

    stated   the metadata without "sha256"
    arrays   contiguous and little-endian
    """
    summed = hashlib.sha256()

    def add(part: Any) -> None:
        summed.update(len(part).to_bytes(8, "little"))
        summed.update(part)

    add(_canonical(stated).encode())
    for name in sorted(arrays):
        array = arrays[name]
        add(_canonical([name, CODES[array.dtype.name], list(array.shape)]).encode())
        add(array.reshape(-1).view(np.uint8))
    return summed.hexdigest()


_REMEDY = "train again or restore a copy"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain value")


def _stored(path: str | os.PathLike[str], kind: str, name: str, array: np.ndarray) -> np.ndarray:
    """The array contiguous and little-endian, which is how it is stored and summed."""
    if CODES.get(array.dtype.name) not in KINDS[kind]:
        expected = ", ".join(DTYPES[code] for code in KINDS[kind])
        raise ValueError(f"{path}: a {kind} file cannot hold {name!r}, which is {array.dtype}; expected {expected}")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _header(path: str | os.PathLike[str], content: bytes, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the safetensors header, what it states in our name); both are well formed."""
    length = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and len(content) - 8 < length <= HEADER_LIMIT:
        found = f"{len(content):,} bytes, of which the header alone has {length + 8:,}"
        raise WeightsError(f"{path}: a safetensors file that is cut short, {found}; {_REMEDY}")
    if len(content) < 10 or length > min(HEADER_LIMIT, len(content) - 8) or content[8:9] != b"{":
        raise WeightsError(f"{path}: not a safetensors file, {len(content)} bytes; expected the {kind} file of a run")
    try:
        header = json.loads(content[8 : 8 + length].decode())
        text = header.get("__metadata__", {}).get(KEY, "null")
        stated = json.loads(text)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged safetensors header; {_REMEDY}") from error
    number = stated.get("format") if isinstance(stated, dict) else None
    if type(number) is not int or number < 1:
        raise WeightsError(f"{path}: a safetensors file, but not one of lstm_np's (no format in its metadata)")
    if number > FORMAT:
        raise WeightsError(f"{path}: written by a newer version of lstm_np, in format {number}; update lstm_np")
    if number > 1 and text != _canonical(stated):  # 1e5 and 1E5 are one number, and one bit apart
        raise WeightsError(f"{path}: damaged safetensors header; {_REMEDY}")
    return header, stated


def _check_statement(path: str | os.PathLike[str], stated: Mapping[str, Any], kind: str) -> None:
    """Raises WeightsError unless the metadata have what their format has, and are those of a file of this kind."""
    first = stated["format"] == 1
    if not first and "sha256" not in stated:
        raise WeightsError(f"{path}: has no SHA-256, as every file of format {stated['format']} has; {_REMEDY}")
    expected = {"config", "format"} if first else {"config", "format", "kind", "sha256"}
    if stated.keys() != expected or not isinstance(stated["config"], dict):
        raise WeightsError(f"{path}: damaged metadata, expected {', '.join(sorted(expected))}; {_REMEDY}")
    found = stated.get("kind", "weights")
    if found != kind:
        raise WeightsError(f"{path}: a {found} file, expected a {kind} file")


def _check_dtypes(path: str | os.PathLike[str], header: Mapping[str, Any], kind: str) -> None:
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if name != "__metadata__" and dtype not in KINDS[kind]:
            raise WeightsError(f"{path}: tensor {name!r} has dtype {dtype}, expected {', '.join(KINDS[kind])}")


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


def check_values(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Raises WeightsError unless all values are finite numbers."""
    for name, array in tensors.items():
        if array.dtype.kind not in "biufc":
            raise WeightsError(f"{path}: tensor {name!r} has dtype {array.dtype}, expected numbers")
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise WeightsError(
                f"{path}: {bad:,} of the {array.size:,} values of tensor {name!r} are not finite (NaN or infinity): "
                "training diverged; take an earlier file, such as the run's best.safetensors"
            )
