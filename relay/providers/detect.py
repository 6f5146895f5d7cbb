"""Recognises what kind of event a stored payload is, where its headers were not kept. Pure."""

from __future__ import annotations

import msgspec

from relay.errors import Malformed

_HEADERS = {
    "github": "X-GitHub-Event",
    "gitlab": "X-Gitlab-Event",
    "gitea": "X-Gitea-Event",
    "forgejo": "X-Forgejo-Event",
    "gogs": "X-Gogs-Event",
}

UNKNOWN = "unknown"
"""What an event is called whose payload does not tell."""

_GITLAB_KINDS = {
    "push": "Push Hook",
    "tag_push": "Tag Push Hook",
    "merge_request": "Merge Request Hook",
}


def event_header(provider: str, body: bytes, event: str | None) -> dict[str, str]:
    """The header that names the event: as given, or as the payload's fields tell.

    Raises Malformed for a body that is not a JSON object.
    """
    if event is None:
        try:
            fields = msgspec.json.decode(body, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Malformed("the payload is not a JSON object") from None
        event = _gitlab(fields) if provider == "gitlab" else _github(fields)
    return {_HEADERS[provider]: event}


def _gitlab(fields: dict[str, object]) -> str:
    kind = str(fields.get("object_kind", UNKNOWN))
    return _GITLAB_KINDS.get(kind, kind)


def _github(fields: dict[str, object]) -> str:
    if "pull_request" in fields:
        return "pull_request"
    if "after" in fields and "ref" in fields:
        return "push"
    if "ref_type" in fields:
        return "delete" if "master_branch" not in fields and "sha" not in fields else "create"
    return "ping" if "zen" in fields else UNKNOWN
