"""read_idx on well-formed files: every type and shape comes back exactly, packed or plain."""

import copy
import gzip
import io
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.data import IDXError, read_idx

pytestmark = pytest.mark.quick

CODES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(code, shape, payload):
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + payload


@st.composite
def idx_files(draw):
    code = draw(st.sampled_from(sorted(CODES)))
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)))
    length = int(np.prod(shape)) * np.dtype(CODES[code]).itemsize
    return code, shape, draw(st.binary(min_size=length, max_size=length))


@settings(deadline=None, max_examples=200)
@given(file=idx_files(), pack=st.sampled_from(["plain", "gzip", "two members"]))
def test_round_trip(tmp_path_factory, file, pack):
    code, shape, payload = file
    data = idx(code, shape, payload)
    if pack == "gzip":
        data = gzip.compress(data)
    elif pack == "two members":
        data = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    path = tmp_path_factory.getbasetemp() / "round-trip"
    path.write_bytes(data)
    array = read_idx(path)
    assert array.shape == shape
    assert array.dtype == np.dtype(CODES[code]).newbyteorder("=")
    assert array.dtype.isnative
    assert array.astype(CODES[code]).tobytes() == payload  # bytes, so that NaN and -0.0 count too
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert array.flags.writeable


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=80), pack=st.booleans(), start=st.sampled_from([b"", b"\0\0", b"\0\0\x08\x01\0\0\0"]))
def test_arbitrary_bytes_give_an_array_or_an_idx_error(tmp_path_factory, data, pack, start):
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(gzip.compress(start + data) if pack else start + data)
    try:
        array = read_idx(path)
    except IDXError:
        return
    assert array.nbytes + 4 + 4 * array.ndim == len(start + data)


def test_large_packed_file_over_many_chunks(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1000, 28, 28), dtype=np.uint8)
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(idx(0x08, images.shape, images.tobytes()), compresslevel=1))
    assert path.stat().st_size > 2 * (1 << 18)
    np.testing.assert_array_equal(read_idx(path), images)


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_end_of_a_gzip_member_at_the_end_of_a_read(tmp_path, beyond):
    chunk = 1 << 18
    start = idx(0x08, (2,), b"a")
    shortest = len(gzip.compress(start)) + 1  # one more for the end of the name
    member = io.BytesIO()
    with gzip.GzipFile("n" * (chunk + beyond - shortest), "wb", fileobj=member) as packed:
        packed.write(start)
    assert len(member.getvalue()) == chunk + beyond
    path = tmp_path / "labels"
    path.write_bytes(member.getvalue() + gzip.compress(b"b"))
    assert read_idx(path).tolist() == [97, 98]
    for tail in (b"\x1f", b"x", b"garbage"):
        path.write_bytes(member.getvalue() + gzip.compress(b"b") + tail)
        with pytest.raises(IDXError, match=f"found {len(tail)} bytes after the gzip data"):
            read_idx(path)
        path.write_bytes(member.getvalue() + tail)
        with pytest.raises(IDXError):
            read_idx(path)


def test_name_does_not_matter_and_path_may_be_str(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(idx(0x08, (2,), b"ab"))
    for given_path in (path, str(path)):
        assert read_idx(given_path).tolist() == [97, 98]


def test_packed_name_with_dots_is_only_a_name(tmp_path):
    path = tmp_path / "labels.gz"
    with path.open("wb") as raw, gzip.GzipFile("../../escape", "wb", fileobj=raw) as packed:
        packed.write(idx(0x08, (1,), b"\7"))
    assert read_idx(path).tolist() == [7]
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.gz"]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda folder: folder / "missing", "no such file"),
        (lambda folder: folder, "a folder"),
        (lambda folder: folder / "missing" / "file", "no such file"),
        (lambda folder: "bad\0name", "null"),
        (lambda folder: "/dev/null", "not a regular file"),
    ],
    ids=["missing", "folder", "in a missing folder", "null byte", "device"],
)
def test_no_file_to_read(tmp_path, make, found):
    with pytest.raises(IDXError) as caught:
        read_idx(make(tmp_path))
    assert found in caught.value.found
    assert len(str(caught.value).splitlines()) == 1


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IDXError, match="not a regular file"):
        read_idx(tmp_path / "pipe")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "labels"
    path.write_bytes(idx(0x08, (1,), b"\7"))

    def refuse(*_args, **_keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(IDXError, match="found Permission denied"):
        read_idx(path)


def test_error_is_one_line_and_can_be_rebuilt():
    error = IDXError("a\nb", 7, "x", "y", "z")
    assert str(error) == "a b: byte 7: found x, expected y; z"
    assert isinstance(error, ValueError)
    other = copy.copy(error)  # rebuilt from its parts, as when it comes from a worker process
    assert (other.file, other.offset, other.found, other.expected, other.hint) == ("a\nb", 7, "x", "y", "z")
