"""read_idx on malformed files: each one refused cheaply, with the byte and the fault named."""

import gzip
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from lstm_np.data import IDXError, read_idx

CODES = {"u8": 0x08, "i8": 0x09, "i16": 0x0B, "i32": 0x0C, "f32": 0x0D, "f64": 0x0E}
WIDTH = {"u8": 1, "i8": 1, "i16": 2, "i32": 4, "f32": 4, "f64": 8}
GOOD = struct.pack(">HBB3I", 0, 0x08, 3, 2, 3, 4) + bytes(range(24))
PACKED = gzip.compress(GOOD, mtime=0)


def header(code, *shape):
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


def patched(data, offset, new):
    return data[:offset] + bytes(new) + data[offset + len(new) :]


def header_cases():
    for code in [*range(0x08), 0x0A, *range(0x0F, 0x13), 0x7F, 0x80, 0xFF]:
        yield f"type {code:#04x}", patched(GOOD, 2, [code]), 2, "IDX has no such type"
    for count in (0, 5, 6, 127, 255):
        yield f"{count} dimensions", patched(GOOD, 3, [count]), 3, f"found {count} dimensions"
    for offset in (0, 1):
        for value in (1, 0x80, 0xFF):
            yield f"byte {offset} is {value}", patched(GOOD, offset, [value]), 0, "not an IDX file"
    for name, code in CODES.items():
        magic = header(code, 1)[:4][::-1]
        yield f"little-endian {name}", magic + bytes(12), 0, "little-endian"
    for name, start in {
        "zip": b"PK\3\4",
        "xz": b"\xfd7zXZ\0",
        "bzip2": b"BZh91AY",
        "zstd": b"\x28\xb5\x2f\xfd",
        "7-zip": b"7z\xbc\xaf\x27\x1c",
        "NumPy": b"\x93NUMPY\1\0",
        "PNG": b"\x89PNG\r\n\x1a\n",
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    }.items():
        yield f"{name} file", start + bytes(40), 0, name
    for name, text in {
        "html": b"<html><body>403 Forbidden</body></html>",
        "doctype": b"<!DOCTYPE html>\n<html>",
        "blank lines first": b"\r\n\n  <!DOCTYPE html>",
        "byte order mark": b"\xef\xbb\xbf<!doctype html>",
        "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    }.items():
        yield f"web page: {name}", text, 0, "this is a web page"
    yield "text", b"404: Not Found", 0, "not an IDX file"
    yield "json", b'{"error": "quota"}', 0, "not an IDX file"
    yield "empty", b"", 0, "the file is empty"
    for count in (1, 2, 3, 4):
        for axis in range(count):
            shape = [1] * count
            shape[axis] = 2**31
            offset = 4 + 4 * axis
            yield f"size 2**31, axis {axis} of {count}", header(8, *shape) + b"x", offset, "less than 2147483648"
    yield "size 2**32 - 1", header(8, 2**32 - 1), 4, "size 4294967295"
    big = 2**31 - 1
    yield "product overflows 64 bits", header(8, big, big, big), 4, "2**63"
    yield "product overflows 64 bits, 4 dimensions", header(8, big, big, big, big), 4, "2**63"
    yield "product wraps to 0 in 64 bits", header(8, 2**30, 2**30, 2**30, 2**30), 4, "2**63"
    yield "product just overflows", header(8, 2**30, 2**30, 8), 4, "2**63"
    yield "product just does not overflow", header(8, 2**30, 2**30, 7), 16, "0 bytes of items"
    yield "bytes overflow 64 bits", header(0x0E, big, big), 4, "2**63"
    yield "largest size, nothing there", header(8, big), 8, "0 bytes of items"
    for count in (1, 2, 3, 4):
        whole = header(8, *[1] * count)
        for length in range(1, len(whole)):
            yield f"header of {count} cut at {length}", whole[:length], length, f"end after {length} bytes"


def payload_cases():
    for name, code in CODES.items():
        width = WIDTH[name]
        start = header(code, 3, 2)
        items = bytes(range(6 * width))
        for what, length in {"no items": 0, "half": 3 * width, "one item short": 5 * width}.items():
            yield f"{name}: {what}", start + items[:length], 12 + length, f"found {length} bytes of items"
        if width > 1:
            yield f"{name}: one byte short", start + items[:-1], 12 + len(items) - 1, "bytes of items"
        for what, extra in {"a byte": b"x", "an item": bytes(width), "all items": items}.items():
            yield f"{name}: {what} too much", start + items + extra, 12 + len(items), f"found {len(extra)} more bytes"
    yield "zero items, one byte", header(8, 0) + b"x", 8, "found 1 more bytes"


def gzip_cases():
    yield "gzip in gzip", gzip.compress(PACKED), 0, "still packed"
    yield "web page, packed", gzip.compress(b"<!DOCTYPE html>"), 0, "this is a web page"
    yield "text, packed", gzip.compress(b"not found"), 0, "not an IDX file"
    yield "nothing, packed", gzip.compress(b""), 0, "the file is empty"
    yield "three bytes, packed", gzip.compress(GOOD[:3]), 3, "end after 3 bytes"
    for length in (4, 8, 15):
        yield f"header cut at {length}, packed", gzip.compress(GOOD[:length]), length, f"end after {length} bytes"
    yield "only the gzip magic", PACKED[:2], 2, "cut short"
    yield "only the gzip header", PACKED[:10], 10, "cut short"
    yield "half", PACKED[: len(PACKED) // 2], len(PACKED) // 2, "cut short"
    yield "without the checksum", PACKED[:-8], len(PACKED) - 8, "cut short"
    yield "without the last byte", PACKED[:-1], len(PACKED) - 1, "cut short"
    yield "checksum wrong", patched(PACKED, len(PACKED) - 8, [PACKED[-8] ^ 1]), 24, "incorrect data check"
    yield "length wrong", patched(PACKED, len(PACKED) - 1, [PACKED[-1] ^ 1]), 24, "incorrect length check"
    yield "unknown method", patched(PACKED, 2, [9]), 0, "unknown compression method"
    yield "reserved flags", patched(PACKED, 3, [0xE0]), 0, "unknown header flags"
    yield "bad block", patched(PACKED, 10, [0xFF, 0xFF]), 0, "damaged gzip data"
    for what, tail in {
        "one byte": b"\x1f",
        "garbage": b"garbage",
        "a web page": b"<html>",
        "zeros": bytes(512),
    }.items():
        yield f"{what} after the gzip data", PACKED + tail, len(PACKED), f"{len(tail)} bytes after the gzip data"
    yield "second member cut", PACKED + PACKED[:5], len(PACKED) + 5, "cut short"
    yield "second member damaged", PACKED + b"\x1f\x8b\x08\xe0" + bytes(20), len(PACKED), "unknown header flags"
    yield "second member with more items", PACKED + gzip.compress(b"x"), 40, "found more bytes"
    for name, code in CODES.items():
        start, items = header(code, 5), bytes(5 * WIDTH[name])
        yield (
            f"{name}, packed: short",
            gzip.compress((start + items)[:-1]),
            8 + len(items) - 1,
            "before they were packed",
        )
        yield f"{name}, packed: long", gzip.compress(start + items + b"x"), 8 + len(items), "found more bytes"
    bomb = zlib.compressobj(9, wbits=31)
    yield (
        "bomb behind a small header",
        bomb.compress(header(8, 16)) + bomb.compress(bytes(1 << 26)) + bomb.flush(),
        24,
        "found more bytes",
    )
    yield "bomb without a header", gzip.compress(bytes(1 << 24)), 2, "IDX has no such type"
    yield "2 GiB declared by a tiny file", gzip.compress(header(8, 2**31 - 1) + bytes(100)), 4, "enough for"
    yield "10 MB declared, 1 kB there", gzip.compress(header(8, 10**7) + bytes(20000)), 4, "enough for"
    noise = np.random.default_rng(1).bytes(3000)
    yield "3 MB declared, 3 kB of noise", gzip.compress(header(8, 3 * 10**6) + noise), 3008, "before they were packed"


CASES = [*header_cases(), *payload_cases(), *gzip_cases()]


def test_there_are_enough_cases():
    assert len(CASES) >= 150
    assert len({name for name, *_ in CASES}) == len(CASES)


@pytest.mark.parametrize(("data", "offset", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(tmp_path, data, offset, text):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(IDXError) as caught:
        read_idx(path)
    error = caught.value
    assert error.file == str(path)
    assert error.offset == offset
    assert text in str(error)
    assert all((error.found, error.expected, error.hint))
    assert len(str(error).splitlines()) == 1


def test_refusals_are_cheap(tmp_path):
    path = tmp_path / "file"
    for name, data, *_ in CASES:
        path.write_bytes(data)
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(IDXError):
            read_idx(path)
        seconds = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20, name
        assert seconds < 0.5, name  # 0.5 and not 0.05: another process may hold the core


@pytest.mark.parametrize("data", [GOOD, PACKED], ids=["plain", "packed"])
def test_every_prefix_is_refused(tmp_path, data):
    path = tmp_path / "file"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(IDXError):
            read_idx(path)
    path.write_bytes(data)
    assert read_idx(path).shape == (2, 3, 4)


def test_every_bit_flip_of_a_packed_file_is_refused_or_harmless(tmp_path):
    path = tmp_path / "file"
    harmless = 0
    for bit in range(8 * len(PACKED)):
        flipped = bytearray(PACKED)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            array = read_idx(path)
        except IDXError:
            continue
        harmless += 1
        assert array.tobytes() == GOOD[16:]
    assert (
        0 < harmless <= 8 * 7
    )  # the time stamp and the like: fields of the gzip header that say nothing about the data
