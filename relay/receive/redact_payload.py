"""Redacts payloads: secrets of the relay, of the sender, and of the authors of commits.

Few payloads hold a secret. A first pass over the text, at a hundredth of the cost of parsing,
proves that most have none; only the others are parsed and written again.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from pydantic_core import SchemaError, SchemaValidator, core_schema

from relay.audit import REDACTED, Redactor
from relay.errors import Malformed
from relay.providers.payloads import decode

_SECRETIVE = re.compile(
    r"secret|token|passw|passphrase|pwd|credential|authorization|cookie"
    r"|(?:private|api|access|signing)[_-]?key|\bjwt\b",
    re.IGNORECASE,
)
"""Parts of the names of JSON keys and URL parameters whose values are redacted."""

_USERINFO = re.compile(r"(?<=://)(?!git@)[^\s/?#]+@")
"""Who logs in, in a URL (RFC 3986, section 3.2.1). A token may be the name; ``git`` is none."""

_PARAMETER = re.compile(r"(?<=[?&])([^\s?&#=]++)=[^\s&#]+")
"""A name in a URL's query, and its value (RFC 3986, section 3.4)."""

# Patterns of the first pass, of Rust's regular expressions: https://docs.rs/regex. Each finds at
# least what the pattern above of the same purpose would find once the JSON is parsed.

_WORDS = (
    "secret|token|passw|passphrase|pwd|credential|authorization|cookie|jwt"
    "|(?:private|api|access|signing)[_-]?key"
)
"""``_SECRETIVE``, for text in lower case."""

_LETTERS_ELSEWHERE = "\u017f|\u212a|\u0130|\u0131"
"""What IGNORECASE takes for an ASCII letter though it is none."""

_ESCAPES = r"\\u(?:00(?:2[0-589a-fA-F]|3[0-9abdfABDF]|[4-7])|01[37]|212)|\\/"
"""Escapes that may hide a part of what the other patterns look for. Not among them are those of
``&``, ``'``, ``<`` and ``>``, which Go and Rails write in any text."""

_NAME, _END = r'[^/?#"\\@]', r"[@\\]"
_USER = (
    rf"://(?:{_END}|[^g/?#\"\\@]{_NAME}*{_END}|g(?:{_END}|[^i/?#\"\\@]{_NAME}*{_END}"
    rf"|i(?:{_END}|[^t/?#\"\\@]{_NAME}*{_END}|t(?:\\|{_NAME}+{_END}))))"
)
"""``_USERINFO``, where a backslash may stand for anything. It spells ``(?!git@)`` out."""

_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class PayloadRedactor:
    """Redacts payloads with the secrets that a Redactor has at the moment."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact
        self._forms: frozenset[str] = frozenset()
        self._anything = _matcher(f"{_USER}|{_ESCAPES}|{_LETTERS_ELSEWHERE}")
        self._words = _matcher(_WORDS)
        self._any_escape_hides = False

    def redact(self, body: bytes) -> bytes:
        """Return a JSON object as JSON, its secrets replaced by a mark. Text that is not UTF-8 is
        replaced.

        Raises Malformed for anything else, or where it is nested too deeply to be looked through.
        """
        return body if self.is_clean(body) else redact_parsed(body, self._redact)

    def is_clean(self, body: bytes) -> bool:
        """Return True if ``redact_parsed`` would certainly find nothing in a body."""
        if self._redact.forms is not self._forms:
            self._learn()
        try:
            # One copy after the other: a large body is in memory often enough.
            if self._words.isinstance_python(body.lower().decode()):
                return False
            text = body.decode()
        except UnicodeDecodeError:
            return False
        if self._any_escape_hides and "\\u" in text:
            return False
        return not self._anything.isinstance_python(text)

    def _learn(self) -> None:
        """Make the first pass look for the current secrets of the redactor."""
        self._forms = forms = self._redact.forms
        written = {_encode(form).decode()[1:-1] for form in forms}
        patterns = [_USER, _ESCAPES, _LETTERS_ELSEWHERE, *map(re.escape, sorted(forms | written))]
        try:
            self._anything = _matcher("|".join(patterns))
        except SchemaError:
            # Too many secrets for one pattern: each payload is parsed.
            self._anything = _matcher("")
        self._any_escape_hides = any(
            not form.isascii() or not form.isprintable() or not set("&<>'").isdisjoint(form)
            for form in forms
        )


def redact_parsed(body: bytes, redact: Redactor) -> bytes:
    """Return what PayloadRedactor.redact does, parsing the body in any case."""
    parsed = decode(_object, body.decode(errors="replace").encode())
    _redact_by_place(parsed)
    try:
        text = _encode(parsed)
        # Nearly no body holds a secret; only one that does is looked through for each of them.
        return _encode(redact.values(parsed)) if redact.finds(text) else text
    except RecursionError:
        raise Malformed("nested too deeply") from None


def _matcher(pattern: str) -> SchemaValidator:
    """Return Rust's regular expression, which pydantic has; it looks for a pattern of many words
    fifty times as fast as Python's."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _redact_by_place(parsed: dict[str, Any]) -> None:
    is_secretive: dict[str, bool] = {}
    waiting: list[tuple[dict[Any, Any] | list[Any], bool]] = [(parsed, False)]
    while waiting:
        here, is_below = waiting.pop()
        for key, value in here.items() if isinstance(here, dict) else enumerate(here):
            is_secret = is_below
            if isinstance(key, str) and not is_below:
                if key not in is_secretive:
                    is_secretive[key] = _SECRETIVE.search(key) is not None
                is_secret = is_secretive[key]
            if isinstance(value, str):
                if is_secret and value:
                    here[key] = REDACTED
                elif "://" in value:
                    here[key] = _PARAMETER.sub(_parameter, _USERINFO.sub(f"{REDACTED}@", value))
            elif isinstance(value, dict | list):
                waiting.append((value, is_secret))


def _parameter(match: re.Match[str]) -> str:
    return f"{match[1]}={REDACTED}" if _SECRETIVE.search(match[1]) else match[0]
