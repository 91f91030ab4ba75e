"""Looks for needles in bytes of any kind: as they are, encoded, cut short, or compressed.

    plain       the bytes, in any mixture of cases
    piece       any `PIECE_BYTES` of them in a row, for texts that were cut or wrapped
    hex         in either case
    base64      standard and URL-safe, at each of the three alignments inside a longer text
    utf-16      in both byte orders
    escaped     as JSON writes what is not ASCII: \\u0063\\u0061…
    percent     as URLs write what they may not hold
    decimal     of a number's bytes
    digest      MD5, SHA-1 and SHA-256 of the whole, raw and in hex: a fingerprint that can be guessed

Streams of zlib, gzip, bzip2 and xz are unpacked and searched too, one inside the other.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PIECE_BYTES = 12
"""About two words: less is found by chance or says little."""
START_BYTES = 8
FOLDED_FORMS = frozenset({"plain", "piece", "hex", "escaped", "percent"})
"""Found in any mixture of cases."""
UNPACKED_BYTES_MAX = 16 * 1024 * 1024
DEPTH_MAX = 3

_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")


@dataclass(frozen=True, slots=True)
class Needle:
    """Something that must not be found."""

    name: str
    data: bytes
    number: bool = False
    """Also to be looked for as a decimal number."""
    digests: bool = True
    """Whether its fingerprints must not be found either."""


@dataclass(frozen=True, slots=True)
class Hit:
    where: str
    needle: str
    form: str


class _Index:
    """Thousands of patterns in one pass: by their first bytes, then the rest of those few that begin so."""

    def __init__(self) -> None:
        self._by_start: dict[bytes, list[tuple[Needle, str, bytes]]] = {}

    def add(self, needle: Needle, form: str, pattern: bytes) -> None:
        assert len(pattern) >= START_BYTES, (needle.name, form, pattern)
        self._by_start.setdefault(pattern[:START_BYTES], []).append((needle, form, pattern))

    def found_in(self, data: bytes) -> Iterator[tuple[Needle, str]]:
        by_start = self._by_start
        for at in [at for at in range(len(data) - START_BYTES + 1) if data[at : at + START_BYTES] in by_start]:
            for needle, form, pattern in by_start[data[at : at + START_BYTES]]:
                if data.startswith(pattern, at):
                    yield needle, form


@dataclass(slots=True)
class Haystack:
    """Counts what it was given to search; `hits` names each (place, needle, form) once."""

    needles: list[Needle] = field(default_factory=list[Needle])
    bytes_scanned: int = 0
    hits: list[Hit] = field(default_factory=list[Hit])
    _folded: _Index = field(default_factory=_Index)
    _exact: _Index = field(default_factory=_Index)
    _indexed: int = 0

    def add(self, name: str, data: bytes | str, *, number: bool = False, digests: bool = True) -> None:
        self.needles.append(Needle(name, data.encode() if isinstance(data, str) else data, number, digests))

    def search(self, where: str, data: bytes) -> list[Hit]:
        self.bytes_scanned += len(data)
        found = list(dict.fromkeys(self._search(where, data, 0)))
        self.hits += found
        return found

    def search_file(self, path: Path) -> list[Hit]:
        """A file that goes away meanwhile holds nothing."""
        try:
            return self.search(str(path), path.read_bytes())
        except FileNotFoundError:
            return []

    def search_folder(self, folder: Path) -> list[Hit]:
        return [hit for path in sorted(folder.rglob("*")) if path.is_file() for hit in self.search_file(path)]

    def _search(self, where: str, data: bytes, depth: int) -> Iterator[Hit]:
        self._index_new_needles()
        for needle, form in (*self._folded.found_in(data.lower()), *self._exact.found_in(data)):
            yield Hit(where, needle.name, form)
        if depth < DEPTH_MAX:
            for kind, unpacked in unpacked_streams(data):
                for hit in self._search(where, unpacked, depth + 1):
                    yield Hit(hit.where, hit.needle, f"{kind} {hit.form}")

    def _index_new_needles(self) -> None:
        for needle in self.needles[self._indexed :]:
            for form, pattern in patterns(needle):
                (self._folded if form in FOLDED_FORMS else self._exact).add(needle, form, pattern)
        self._indexed = len(self.needles)


def patterns(needle: Needle) -> Iterator[tuple[str, bytes]]:
    """(form, bytes to look for); those of the folded forms are in lower case."""
    data = needle.data
    yield "plain", data.lower()
    for start in range(max(1, len(data) - PIECE_BYTES + 1)):
        yield "piece", data[start : start + PIECE_BYTES].lower()
    yield "hex", data.hex().encode()
    for text in base64_texts(data):
        yield "base64", text
    yield from _text_forms(data)
    if needle.number:
        yield "decimal", str(int.from_bytes(data, "big")).encode()
        yield "plain", data[::-1].lower()
    for algorithm in ("md5", "sha1", "sha256") if needle.digests else ():
        digest = hashlib.new(algorithm, data, usedforsecurity=False).digest()
        yield "digest", digest
        yield "digest", digest.hex().encode()


def _text_forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    yield "utf-16", text.encode("utf-16-le")
    yield "utf-16", text.encode("utf-16-be")
    yield "escaped", "".join(f"\\u{ord(each):04x}" for each in text).encode()
    yield "percent", "".join(f"%{each:02x}" for each in data).encode()


def base64_texts(data: bytes) -> Iterator[bytes]:
    """What every base64 text holds that has `data` somewhere inside: the characters that no neighbour changes."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data)
        first = -(-before * 4 // 3)
        whole = (before + len(data)) * 8 // 6
        yield text[first:whole]
        yield text[first:whole].replace(b"+", b"-").replace(b"/", b"_")


def unpacked_streams(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every compressed stream in `data`, as far as it can be unpacked."""
    for found in _ZLIB.finditer(data):
        yield from _unpacked("zlib", zlib.decompressobj().decompress, data, found.start())
    for start in _places(data, b"\x1f\x8b\x08"):
        yield from _unpacked("gzip", zlib.decompressobj(wbits=31).decompress, data, start)
    for start in _places(data, b"BZh"):
        yield from _unpacked("bzip2", bz2.BZ2Decompressor().decompress, data, start)
    for start in _places(data, b"\xfd7zXZ\x00"):
        yield from _unpacked("xz", lzma.LZMADecompressor().decompress, data, start)


def _unpacked(
    kind: str, decompress: Callable[[memoryview, int], bytes], data: bytes, start: int
) -> Iterable[tuple[str, bytes]]:
    try:
        unpacked = decompress(memoryview(data)[start : start + UNPACKED_BYTES_MAX], UNPACKED_BYTES_MAX)
    except (zlib.error, OSError, EOFError, lzma.LZMAError):
        return
    if len(unpacked) >= PIECE_BYTES:
        yield kind, unpacked


def _places(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)
