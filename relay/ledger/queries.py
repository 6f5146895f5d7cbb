"""The named queries of ``queries/*.sql``: the one place from which SQL comes.

A query begins with a line ``-- name: the_name``, and ends where the next one begins. The lines of
comment below the name say what it does. Parameters are written ``:name``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$", re.MULTILINE)

_COMMENT = re.compile(r"^\s*--[^\n]*\n", re.MULTILINE)


_GROWS = re.compile(r"INSERT INTO (?:delivery|deploy|attempt|notice|action)\s*\(", re.IGNORECASE)


@functools.cache
def growing_queries() -> frozenset[str]:
    """Return the names of the queries whose commits the ledger's generation counts."""
    return frozenset(name for name, text in named_queries().items() if _GROWS.search(text))


@functools.cache
def named_queries() -> Mapping[str, str]:
    """Return the text of each query by its name. Raises ValueError where a name occurs twice."""
    queries: dict[str, str] = {}
    folder = files("relay.ledger") / "queries"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in queries:
                raise ValueError(f"two queries are named {name}")
            queries[name] = _COMMENT.sub("", text).strip().removesuffix(";")
    return queries
