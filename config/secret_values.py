"""Looks a secret up where its reference says. No message here ever quotes one."""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote, quote_plus, unquote_plus

from yarl import URL

from config.model import SecretRef

MAX_BYTES = 65_536
"""Bytes of a file that holds a secret at most."""

TOKEN_PREFIX = "whsec_"  # noqa: S105

MIN_SECRET_PART = 12
"""Characters from which a part of a secret URL counts as secret itself; ``/api`` does not."""

_PLAIN = re.compile(r"[A-Za-z0-9._~-]+")
"""What is written the same everywhere."""


class MissingSecret(ValueError):
    """There is no usable secret at this place."""


def resolve(
    ref: SecretRef, environ: Mapping[str, str], *, form: Literal["secret", "signing_token"]
) -> str:
    """The secret itself, without the line break that ends its file.

    Raises MissingSecret where there is none, or a blank one, or one of the wrong form.
    """
    if ref.env is not None:
        if ref.env not in environ:
            raise MissingSecret(f"environment variable {ref.env} is not set")
        place, value = f"environment variable {ref.env}", environ[ref.env]
    else:
        place, value = f"file {ref.file}", _read(ref)
    if not value.strip():
        raise MissingSecret(f"{place} is empty: an empty secret would let anyone deploy")
    if form == "signing_token" and not _is_signing_token(value):
        raise MissingSecret(f"{place} is not a signing token: whsec_ and at least 16 bytes base64")
    return value


def url_parts(text: str) -> frozenset[str]:
    """The parts of a URL that are as secret as the whole: its path, the segments of it and the
    values in its query. Those shorter than ``MIN_SECRET_PART`` are left out."""
    try:
        url = URL(text, encoded=True)
    except ValueError:
        return frozenset()
    path, query = url.raw_path, url.raw_query_string
    values = [pair.partition("=")[2] or pair for pair in query.split("&")]
    parts = [part for part in (path, *path.split("/"), *values) if len(part) >= MIN_SECRET_PART]
    decoded = [unquote_plus(part) for part in parts]
    return frozenset(part for part in (*parts, *decoded) if len(part) >= MIN_SECRET_PART)


@functools.lru_cache(1_024)
def written_forms(secret: str) -> frozenset[str]:
    """A secret as it is, and as JSON of several makes, URLs, forms and HTML would write it."""
    if _PLAIN.fullmatch(secret):
        return frozenset((secret,))
    ascii_json = json.dumps(secret)[1:-1]
    return frozenset(
        (
            secret,
            ascii_json,
            json.dumps(secret, ensure_ascii=False)[1:-1],
            ascii_json.replace("/", "\\/"),
            # https://pkg.go.dev/encoding/json#HTMLEscape
            ascii_json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
            quote(secret, safe="", errors="replace"),
            quote(secret, errors="replace"),
            quote_plus(secret, errors="replace"),
            html.escape(secret),
        )
    )


def _read(ref: SecretRef) -> str:
    assert ref.file is not None  # noqa: S101
    try:
        with ref.file.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise MissingSecret(f"file {ref.file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise MissingSecret(f"file {ref.file} is not UTF-8 text") from None
    if len(raw) > MAX_BYTES:
        raise MissingSecret(f"file {ref.file} is larger than {MAX_BYTES} bytes")
    return text.removesuffix("\n").removesuffix("\r")


def _is_signing_token(value: str) -> bool:
    if not value.startswith(TOKEN_PREFIX):
        return False
    try:
        return len(base64.b64decode(value.removeprefix(TOKEN_PREFIX), validate=True)) >= 16
    except (ValueError, binascii.Error):
        return False
