"""The chain of the audit file: each line says which line it was written after. Pure.

A line is the JSON object of standard output with two more keys at its end: ``seq``, counted from
1, and ``prev``, the SHA-256 of the line before without its line feed. Who changes, takes away, adds
or moves a line breaks the chain there, or has to write all that follows anew; then the end differs
from the signed head (relay/audit_file.py).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_LINK = re.compile(rb',"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})"\}\Z')

DROPPED = b'"event":"audit.dropped"'
UNPROVEN = b'"event":"audit.unproven"'
_TOLD = b'"event":"audit.'
_UNTIL = re.compile(rb'"until_seq":([0-9]{1,18}),"until_hash":"([0-9a-f]{64})"')


class Link(NamedTuple):
    """The end of a chain: the last line's number, and the SHA-256 of the line."""

    seq: int
    hash: str


START = Link(0, "0" * 64)


def chained(line: bytes, after: Link) -> tuple[bytes, Link]:
    """A line, which is a JSON object with at least one key, as it stands in the chain, and the
    chain's new end."""
    seq = after.seq + 1
    linked = line[:-1] + _expected(after)
    return linked, Link(seq, digest(linked))


def _expected(after: Link) -> bytes:
    return b',"seq":%d,"prev":"%b"}' % (after.seq + 1, after.hash.encode())


def digest(line: bytes) -> str:
    """What the next line's ``prev`` says of this one."""
    return hashlib.sha256(line).hexdigest()


def link_of(line: bytes) -> Link | None:
    """The number of a line, and the hash of the one before; None where it has none."""
    found = _LINK.search(line, max(0, len(line) - 120))
    return Link(int(found[1]), found[2].decode()) if found else None


def seal(key: bytes, end: Link) -> str:
    """The signature of a chain's end: HMAC-SHA256."""
    return hmac.new(key, b"%d:%b" % (end.seq, end.hash.encode()), hashlib.sha256).hexdigest()


def is_sealed(key: bytes, end: Link, signature: str) -> bool:
    """Whether the signature is that of this end."""
    return hmac.compare_digest(seal(key, end), signature)


class Place(NamedTuple):
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Finding(NamedTuple):
    """Something wrong with a chain."""

    place: Place
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


class Verifier:
    """Follows a chain line by line over all its files, the oldest first."""

    def __init__(self) -> None:
        self.end = START
        """The last line read."""
        self.lines = 0
        self._place: tuple[str, int] | None = None
        self._first: tuple[Place, Link] | None = None
        self._dropped: set[Link] = set()

    def read(self, file: str, number: int, line: bytes) -> Sequence[Finding]:
        """Take the next line, the one of this number in a file, without its line feed."""
        self.lines += 1
        # Nearly every line is as expected; only another one is taken apart.
        if line.endswith(_expected(self.end)) and self._place and _TOLD not in line:
            self.end = Link(self.end.seq + 1, digest(line))
            self._place = (file, number)
            return ()
        before = Place(*self._place) if self._place else None
        self._place = (file, number)
        return list(self._read(before, Place(file, number), line))

    def _read(self, before: Place | None, place: Place, line: bytes) -> Iterator[Finding]:
        link = link_of(line)
        if link is None:
            yield Finding(place, "is no line of the chain: it was added, edited or cut off")
            return
        if DROPPED in line and (found := _UNTIL.search(line)):
            self._dropped.add(Link(int(found[1]), found[2].decode()))
        if UNPROVEN in line:
            yield Finding(place, "what is before it was not vouched for by the head's key")
        expected = self.end
        self.end = Link(link.seq, digest(line))
        if before is None:
            self._first = (place, Link(link.seq - 1, link.hash))
        elif link.seq > expected.seq + 1:
            missing = _numbers(expected.seq + 1, link.seq - 1)
            yield Finding(place, f"{missing} missing before it")
        elif link.seq <= expected.seq:
            yield Finding(place, f"line number {link.seq} comes after number {expected.seq}")
        elif link.hash != expected.hash:
            yield Finding(before, f"was edited: the next line, {place}, was not written after it")

    def finish(self, head: Link | None) -> Iterator[Finding]:
        """Compare the end with the head, if there is one."""
        if self._first is not None:
            place, before = self._first
            if before != START and before not in self._dropped:
                yield Finding(place, f"{_numbers(1, before.seq)} missing before it")
        if head is None or head == self.end:
            return
        place = Place(*self._place) if self._place else Place("-", 0)
        if head.seq > self.end.seq:
            missing = _numbers(self.end.seq + 1, head.seq)
            yield Finding(place, f"{missing} missing after it, by the head")
        elif head.seq < self.end.seq:
            added = _numbers(head.seq + 1, self.end.seq)
            yield Finding(place, f"{added} not known to the head")
        else:
            yield Finding(place, "was edited, or lines before it: the head knows another one")


def _numbers(first: int, last: int) -> str:
    return f"line number {first} is" if first == last else f"line numbers {first} to {last} are"
