"""Checks of signatures and tokens: constant time, over raw bytes, with several active keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence


class HmacKeys:
    """Keys of HMAC-SHA256, any of which may sign.

    Each key's HMAC is prepared once and copied for each body, which saves hashing the key again.
    """

    __slots__ = ("_prepared",)

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._prepared = [hmac.new(key, digestmod=hashlib.sha256) for key in keys]

    def digests(self, *parts: bytes) -> list[bytes]:
        """What each key would sign the concatenated parts with."""
        made = []
        for prepared in self._prepared:
            mac = prepared.copy()
            for part in parts:
                mac.update(part)
            made.append(mac.digest())
        return made

    def vouch(self, signatures: Sequence[bytes], *parts: bytes) -> bytes:
        """The digest that one of these signatures is, or nothing; all pairs are compared."""
        found = b""
        for digest in self.digests(*parts):
            for signature in signatures:
                if hmac.compare_digest(digest, signature):
                    found = digest
        return found


FINGERPRINT_LENGTH = 32
"""Hexadecimal digits of a fingerprint, 128 bits."""


def fingerprint(*parts: bytes) -> str:
    """A short name of these bytes, a body say, that no other bytes have.

    Most processors have instructions for SHA-256, and none for what is faster without them.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def checked_secrets(secrets: Sequence[str]) -> list[bytes]:
    """The secrets as bytes. Raises ValueError where one is blank, without quoting any."""
    if any(not secret.strip() for secret in secrets):
        raise ValueError("an empty secret would let anyone deploy")
    return [secret.encode() for secret in secrets]


def any_equal(secrets: Iterable[bytes], sent: str) -> bool:
    """Whether what was sent is one of the secrets themselves, compared in constant time."""
    given = sent.encode(errors="surrogateescape")
    good = False
    for secret in secrets:
        good |= hmac.compare_digest(secret, given)
    return good


def from_hex(text: str) -> bytes:
    """The bytes of a hexadecimal signature; empty, which equals no digest, if it is not one."""
    try:
        return bytes.fromhex(text) if len(text) == 64 else b""
    except ValueError:
        return b""


def from_base64(text: str) -> bytes:
    """The bytes of a base64 signature; empty, which equals no digest, if it is not one."""
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
