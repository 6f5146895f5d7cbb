"""The body of a webhook without what is secret in it, for people. Pure.

Masked twice. By place: every text below a key whose name says that it is secret (Gogs and old Gitea
send their webhook's own ``secret`` along), who logs in with a URL, and what its query has under
such a name. By value: every secret that this process knows. Both work on the parsed body, where no
escape hides a thing.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from relay.audit import MASK, Redactor
from relay.errors import Malformed
from relay.providers.payloads import decode

_SECRETIVE = re.compile(
    r"secret|token|passw|passphrase|pwd|credential|authorization|cookie"
    r"|(?:private|api|access|signing)[_-]?key|\bjwt\b",
    re.IGNORECASE,
)
"""What the name of a key has in it below which no text is shown, or of a parameter of a URL."""

_USERINFO = re.compile(r"(?<=://)(?!git@)[^\s/?#]+@")
"""Who logs in, in a URL (RFC 3986, section 3.2.1). A token may be the name; ``git`` is none."""

_PARAMETER = re.compile(r"(?<=[?&])([^\s?&#=]++)=[^\s&#]+")
"""A name in a URL's query, and its value (RFC 3986, section 3.4)."""

_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def masked(body: bytes, redact: Redactor) -> bytes:
    """A JSON object as JSON, equal but for what is masked. What is no UTF-8 is replaced.

    Raises Malformed for anything else, or where it is nested too deeply to be looked through.
    """
    parsed = decode(_object, body.decode(errors="replace").encode())
    _mask_by_place(parsed)
    try:
        text = _encode(parsed)
        # Nearly no body holds a secret; only one that does is looked through for each of them.
        return _encode(redact.values(parsed)) if redact.finds(text) else text
    except RecursionError:
        raise Malformed("nested too deeply") from None


def _mask_by_place(parsed: dict[str, Any]) -> None:
    known: dict[str, bool] = {}
    waiting: list[tuple[dict[Any, Any] | list[Any], bool]] = [(parsed, False)]
    while waiting:
        here, is_below = waiting.pop()
        for key, value in here.items() if isinstance(here, dict) else enumerate(here):
            is_secret = is_below
            if isinstance(key, str) and not is_below:
                if key not in known:
                    known[key] = _SECRETIVE.search(key) is not None
                is_secret = known[key]
            if isinstance(value, str):
                if is_secret and value:
                    here[key] = MASK
                elif "://" in value:
                    here[key] = _PARAMETER.sub(_parameter, _USERINFO.sub(f"{MASK}@", value))
            elif isinstance(value, dict | list):
                waiting.append((value, is_secret))


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if _SECRETIVE.search(found[1]) else found[0]
