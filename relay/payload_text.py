"""A payload as text for people. Pure."""

from __future__ import annotations

import json
import re

MOST_WHOLE = 8_388_608
"""Characters of a payload on many lines. One that is nested deeply has more blanks than fit
anywhere; it stays on one line."""

_encoder = json.JSONEncoder(indent=2, ensure_ascii=False)

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What moves a terminal's cursor, or turns the direction of a text round."""


def whole(payload: bytes) -> str:
    """Return a payload on many lines; see ``beginning``."""
    text = beginning(payload, MOST_WHOLE)
    return text if len(text) < MOST_WHOLE else _harmless(payload.decode(errors="replace"))


def beginning(payload: bytes, most: int) -> str:
    """Return what a payload begins with, on many lines, in ``most`` characters or a few more. What
    would move a terminal's cursor is escaped as JSON escapes it, so that all of it stays the same.
    """
    parts: list[str] = []
    size = 0
    try:
        for part in _encoder.iterencode(json.loads(payload)):
            parts.append(part)
            size += len(part)
            if size >= most:
                break
    except (ValueError, RecursionError):
        parts = [payload.decode(errors="replace")]
    return _harmless("".join(parts)[:most])


def _harmless(text: str) -> str:
    return _UNSEEN.sub(lambda unseen: f"\\u{ord(unseen[0]):04x}", text)
