"""Webhooks of GitHub's with the fields that the history of a ref needs."""

from __future__ import annotations

import json
from typing import Any

from tests.harness import sha_of

NONE = "0" * 40
AT = 1_700_000_000
"""When the first push happened, in seconds since the Unix epoch."""


def push(
    before: str,
    after: str,
    at: int = 0,
    *,
    ref: str = "refs/heads/main",
    note: str = "",
    **keys: Any,
) -> bytes:
    """Return a push that moved a ref, ``at`` seconds after the first one. Commits are named by
    words; an empty word is none."""
    commit = {"id": _sha(after), "message": "Change it", "author": {"name": "A", "email": "a@b.c"}}
    return json.dumps(
        {
            "ref": ref,
            "before": _sha(before),
            "after": _sha(after),
            "created": not before,
            "deleted": not after,
            "head_commit": commit if after else None,
            "repository": {"id": 7, "full_name": "acme/web", "pushed_at": AT + at, "note": note},
            "sender": {"login": "a"},
            **keys,
        }
    ).encode()


def pull_request(
    action: str, head: str = "head", at: int = 0, *, labels: tuple[str, ...] = (), **keys: Any
) -> bytes:
    """Return an event of pull request 5, ``at`` seconds after the first one."""
    repository = {"id": 7, "full_name": "acme/web"}
    minutes, seconds = divmod(at, 60)
    return json.dumps(
        {
            "action": action,
            "number": 5,
            "pull_request": {
                "head": {"ref": "topic", "sha": _sha(head), "repo": repository},
                "base": {"ref": "main", "sha": _sha("base"), "repo": repository},
                "title": "A title",
                "draft": False,
                "merged": False,
                "state": "closed" if action == "closed" else "open",
                "updated_at": f"2023-11-14T22:{minutes:02}:{seconds:02}Z",
                "labels": [{"name": label} for label in labels],
                "user": {"login": "a"},
                **keys,
            },
            "repository": repository,
            "sender": {"login": "a"},
        }
    ).encode()


def _sha(word: str) -> str:
    return sha_of(word) if word else NONE
