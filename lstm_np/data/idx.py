"""Read IDX files, the format of MNIST and its relatives, packed with gzip or plain.

An IDX file is, all big-endian: two zero bytes, one byte for the type, one byte for the number of dimensions, a 4-byte
size per dimension, then the items in C order (Y. LeCun's description of the MNIST files; gzip is RFC 1952).

The sizes in a header are not trusted: memory is allocated only for bytes that were actually read, and unpacking stops
one byte after the declared length.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from typing import BinaryIO

import numpy as np

from lstm_np.errors import LstmNpError
from lstm_np.files import expand

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 4
MAX_SIZE = 2**31  # sizes are signed 4-byte integers in the description of the format

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 18
# Deflate cannot expand by more than this (a match of 258 bytes in 2 bits), so a header that claims more is refused
# before anything is unpacked.
_MAX_EXPANSION = 1032
_LOOKALIKES = (
    (b"PK", "a zip archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7-zip archive: unpack it first"),
    (b"\x93NUMPY", "a NumPy file: read it with numpy.load"),
    (b"\x89PNG", "a PNG image, not an IDX file"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with git lfs pull"),
)


class IDXError(LstmNpError, ValueError):
    """A file that is not the IDX file it should be.

    `file` (str), `offset` (int, the byte at fault; counted in the unpacked data, except for faults of the gzip packing
    itself, and 0 where no byte is at fault), `found`, `expected` and `hint` (str) say what and where; `str()` is one
    line.

    >>> lstm_np.data.read_idx("no-such-file")
    Traceback (most recent call last):
    lstm_np.data.idx.IDXError: no-such-file: byte 0: found no such file, expected an IDX file; check the folder ...
    """

    def __init__(self, file: str | os.PathLike[str], offset: int, found: str, expected: str, hint: str) -> None:
        self.file, self.offset, self.found, self.expected, self.hint = os.fsdecode(file), offset, found, expected, hint
        line = f"{self.file}: byte {offset}: found {found}, expected {expected}; {hint}"
        super().__init__(" ".join(line.splitlines()))

    def __reduce__(self):
        return type(self), (self.file, self.offset, self.found, self.expected, self.hint)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, gzip-packed or plain (told by content, not by name).

    Returns an array of 1 to 4 dimensions, dtype uint8, int8, int16, int32, float32 or float64 in the byte order of this
    machine, C-contiguous and writable.

    >>> content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])  # uint8, 2 dimensions, 2 x 3
    >>> with open("small.idx", "wb") as file:
    ...     _ = file.write(content)
    >>> lstm_np.data.read_idx("small.idx").tolist()
    [[1, 2, 3], [4, 5, 6]]

    Raises IDXError for anything wrong with the file, and no other exception.
    """
    file = os.fsdecode(path)
    try:
        file = str(expand(file))
        # Only regular files are opened: reading a pipe or a device may block or never end.
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise IDXError(file, 0, kind, "an IDX file", "name the file itself")
        with open(file, "rb") as stream:
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            return _read_packed(file, stream, status.st_size) if packed else _read_plain(file, stream, status.st_size)
    except IDXError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise IDXError(file, 0, "no such file", "an IDX file", "check the folder and the name") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte in it
        reason = getattr(error, "strerror", None) or str(error)
        raise IDXError(file, 0, reason, "a readable file", "check its permissions and its disk") from None


class _Header:
    """Type, shape and length that the first bytes of a file declare.

    `feed` takes the bytes read so far and returns how many more are needed; 0 once the header is complete.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.size = 4

    def feed(self, start: bytes | bytearray) -> int:
        if len(start) < 4:
            if start and not self._could_be_idx(start):
                self._refuse_magic(start)
            return 4 - len(start)
        if start[0] or start[1] or start[2] not in TYPES or not 1 <= start[3] <= MAX_DIMENSIONS:
            self._refuse_magic(start)
        self.dtype = np.dtype(TYPES[start[2]])
        self.size = 4 + 4 * start[3]
        if len(start) < self.size:
            return self.size - len(start)
        self.shape = struct.unpack_from(f">{start[3]}I", start, 4)
        items = 1
        for axis, extent in enumerate(self.shape):
            if extent >= MAX_SIZE:
                raise IDXError(
                    self.file, 4 + 4 * axis, f"size {extent}", f"less than {MAX_SIZE}", "the header is damaged"
                )
            items *= extent
        self.payload = items * self.dtype.itemsize
        if self.payload >= 2**63:
            shape = " x ".join(map(str, self.shape))
            raise IDXError(self.file, 4, f"sizes {shape}", "fewer than 2**63 bytes", "the header is damaged")
        return 0

    @staticmethod
    def _could_be_idx(start: bytes | bytearray) -> bool:
        return not any(start[:2]) and (len(start) < 3 or start[2] in TYPES)

    def _refuse_magic(self, start: bytes | bytearray) -> None:
        """Raise the IDXError that says what these bytes are instead of an IDX header."""
        found = f"magic {int.from_bytes(start[:4], 'big')} (0x{bytes(start[:4]).hex()})"
        expected = "0x0000, a type 08 09 0b 0c 0d 0e, 1 to 4 dimensions"
        offset = 0
        if start[:2] == _GZIP:
            hint = "still packed: the file was gzipped twice, unpack it once"
        elif looks_like_web_page(start):
            hint = "this is a web page, not an IDX file: download it again"
        elif known := next((text for prefix, text in _LOOKALIKES if start.startswith(prefix)), None):
            hint = f"this is {known}"
        elif start[2:4] == b"\0\0" and start[1] in TYPES:
            hint = "the magic is reversed: the file was written little-endian"
        elif any(start[:2]):
            hint = "this is not an IDX file, or its start is damaged"
        elif start[2] not in TYPES:
            offset, found, hint = 2, f"type 0x{start[2]:02x}", "IDX has no such type"
            expected = "a type of 08 09 0b 0c 0d 0e"
        else:
            offset, found, expected = 3, f"{start[3]} dimensions", f"1 to {MAX_DIMENSIONS}"
            hint = "this IDX file holds no array that can be read here"
        raise IDXError(self.file, offset, found, expected, hint)

    def truncated(self, present: int, hint: str) -> IDXError:
        """The error for data that end after `present` bytes."""
        if present == 0:
            return IDXError(self.file, 0, "no data", "an IDX header", "the file is empty: download it again")
        if present < self.size:
            return IDXError(self.file, present, f"end after {present} bytes", f"a header of {self.size} bytes", hint)
        expected = f"{self.payload} bytes for {' x '.join(map(str, self.shape))} items of {self.dtype.itemsize}"
        return IDXError(self.file, present, f"{present - self.size} bytes of items", expected, hint)

    def trailing(self, found: str) -> IDXError:
        """The error for data that continue after the last item."""
        hint = "the header does not belong to these items, or something was appended"
        return IDXError(self.file, self.size + self.payload, found, "the end of the file", hint)

    def array(self, data: bytearray) -> np.ndarray:
        """The items in `data`, which holds exactly header and items."""
        array = np.ndarray(self.shape, self.dtype, buffer=data, offset=self.size)
        return array.astype(self.dtype.newbyteorder("="), copy=False)


def looks_like_web_page(start: bytes | bytearray) -> bool:
    """True where the first bytes of a file open a tag, as HTML and XML do."""
    return bytes(start[:64]).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _read_plain(file: str, stream: BinaryIO, length: int) -> np.ndarray:
    """The array in an IDX file of `length` bytes that is not packed."""
    start = stream.read(64)
    header = _Header(file)
    header.feed(start)
    if header.size > len(start) or header.size + header.payload > length:
        raise header.truncated(length, "the file is cut short: download it again")
    if header.size + header.payload < length:
        raise header.trailing(f"{length - header.size - header.payload} more bytes")
    stream.seek(0)
    data = bytearray(length)
    present = stream.readinto(data)  # type: ignore[attr-defined]
    if present != length:
        raise header.truncated(present, "the file shrank while it was read")
    return header.array(data)


def _read_packed(file: str, stream: BinaryIO, length: int) -> np.ndarray:
    """The array in a gzip-packed IDX file of `length` packed bytes."""
    header = _Header(file)
    data = bytearray()
    inflater = zlib.decompressobj(wbits=31)  # 31: a gzip wrapper, its CRC and length checked by zlib
    packed = b""
    limit = 4  # how many unpacked bytes may exist at most: the magic, the header, then one byte more than declared
    while True:
        if inflater.eof:
            packed = inflater.unused_data
            if len(packed) < len(_GZIP):
                packed += stream.read(_CHUNK)
            if not packed:
                break
            if not packed.startswith(_GZIP):
                offset = stream.tell() - len(packed)
                found = f"{length - offset} bytes after the gzip data"
                raise IDXError(file, offset, found, "the end of the file", "something was appended")
            inflater = zlib.decompressobj(wbits=31)  # gzip members may follow each other: RFC 1952, section 2.2
        elif not packed:
            packed = stream.read(_CHUNK)
            if not packed:
                hint = "the gzip data are cut short: download the file again"
                found = f"end after {length} packed bytes"
                raise IDXError(file, length, found, "the end mark of the gzip data", hint)
        try:
            data += inflater.decompress(packed, limit - len(data))
        except zlib.error as error:
            offset = stream.tell() - len(packed)
            found = f"damaged gzip data here or later ({str(error).rpartition(': ')[2]})"
            hint = "the file was damaged on its way: download it again"
            raise IDXError(file, offset, found, "gzip data with matching checksum", hint) from None
        packed = inflater.unconsumed_tail
        if len(data) == limit:
            missing = header.feed(data[: header.size])
            if missing:
                limit += missing
            elif limit == header.size:
                if header.payload > _MAX_EXPANSION * length:
                    found = f"{length} packed bytes"
                    expected = f"enough for {header.payload} bytes of {' x '.join(map(str, header.shape))} items"
                    raise IDXError(file, 4, found, expected, "the header is damaged, or the file is cut short")
                limit += header.payload + 1
            else:
                raise header.trailing("more bytes")
    if header.feed(data[: header.size]) or len(data) < header.size + header.payload:
        raise header.truncated(len(data), "the items were cut short before they were packed: download the file again")
    return header.array(data)
