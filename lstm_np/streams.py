"""Counter-based random streams, drawn on the host.

Every random number in the engine is a pure function of a key such as ``(seed, "shuffle", epoch)``: nothing depends on
what was drawn before.  So a NumPy run and a CuPy run start from the same bits, and any point of a run can be re-entered
without replaying what came before it.

The generator is Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
NumPy promises the raw output of a bit generator across versions; it does not promise the distributions built on it, so
orders and masks are made from raw bits, and only initial weights (which are stored with a model) use `generator`.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _philox(key: tuple[int | str, ...]) -> np.random.Philox:
    """Philox keyed by 128 bits of SHA-256 over the key's parts, each with its type and length.

    (Without them ("a", "bc") and ("ab", "c") would be one key.)
    """
    digest = hashlib.sha256()
    for part in key:
        if isinstance(part, (bool, float)) or not isinstance(part, (int, str, np.integer)):
            raise TypeError(f"a stream key is made of integers and strings, found {part!r}")
        tag = b"s" if isinstance(part, str) else b"i"
        text = str(part if isinstance(part, str) else int(part)).encode()
        digest.update(tag + len(text).to_bytes(8, "little") + text)
    return np.random.Philox(key=int.from_bytes(digest.digest()[:16], "little"))


def raw(n: int, *key: int | str) -> np.ndarray:
    """`n` uniformly random 64-bit words, shape (n,), dtype uint64, a function of the key alone.

    Raises TypeError when a part of the key is neither an integer nor a string.
    """
    return _philox(key).random_raw(n)


def permutation(n: int, *key: int | str) -> np.ndarray:
    """A random order of 0 ... n-1, shape (n,), dtype int64: the stable argsort of `raw(n, *key)`.

    Raises TypeError when a part of the key is neither an integer nor a string.
    """
    return np.argsort(raw(n, *key), kind="stable")


def keep_mask(shape: tuple[int, ...], keep: float, *key: int | str) -> np.ndarray:
    """A Bernoulli mask of dtype bool: True with probability `keep` (resolution 2**-32), a function of the key alone.

    Raises ValueError when `keep` is not in (0, 1], TypeError for a bad key.
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"the probability to keep a unit must be in (0, 1], found {keep}")
    size = 1
    for extent in shape:
        size *= extent
    kept = min(round(keep * 2**32), 2**32)  # of the 2**32 words that may be drawn
    if kept == 0:
        return np.zeros(shape, bool)
    words = raw((size + 1) // 2, *key).view(np.uint32)[:size]
    return (words <= np.uint32(kept - 1)).reshape(shape)


def generator(*key: int | str) -> np.random.Generator:
    """A NumPy Generator over the stream of this key, for initial weights.

    Raises TypeError when a part of the key is neither an integer nor a string.
    """
    return np.random.Generator(_philox(key))
