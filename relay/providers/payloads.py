"""What the dialects' payloads have in common: decoding them, commits, and the "no commit" hash."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec

from relay.errors import Malformed
from relay.events.event import MAX_FILES, MAX_FILES_LENGTH, MAX_MESSAGE, Person

T = TypeVar("T")

FORM = "application/x-www-form-urlencoded"


class Author(msgspec.Struct):
    name: str | None = None
    email: str | None = None
    username: str | None = None


class Changes(msgspec.Struct):
    """Of a commit, what it changed."""

    added: list[str] | None = None
    modified: list[str] | None = None
    removed: list[str] | None = None


class Commit(Changes):
    id: str = ""
    message: str | None = None
    author: Author | None = None


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The fields a dialect reads of a JSON body. Raises Malformed for anything else."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Malformed(f"unexpected payload: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"not JSON: {error}") from None
    except RecursionError:
        raise Malformed("nested too deeply") from None


def unwrap(content_type: str, body: bytes) -> bytes:
    """The JSON of a body that may be a form with a field ``payload``. Raises Malformed."""
    if not content_type.lower().startswith(FORM):
        return body
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=16, strict_parsing=True)
    except ValueError:
        raise Malformed("not a form with a field 'payload'") from None
    if len(fields.get("payload", ())) != 1:
        raise Malformed("the form has no single field 'payload'")
    return fields["payload"][0].encode()


def is_no_commit(sha: str) -> bool:
    """All zeros, as senders write where there is no commit; 64 of them in SHA-256 repositories."""
    return not sha.strip("0")


def person(author: Author | None) -> Person:
    """An author as far as the payload tells."""
    if author is None:
        return Person()
    return Person(name=author.name or "", email=author.email or "", login=author.username or "")


def changed_files(commits: Sequence[Changes]) -> tuple[tuple[str, ...], bool]:
    """The paths that the commits touch, and whether no commit kept its list back.

    What several commits touch is named several times: telling so costs more than all the rest, and
    routing asks only whether any path matches. Where they are too many, each is named once.
    """
    files: list[str] = []
    complete = True
    for commit in commits:
        for paths in (commit.added, commit.modified, commit.removed):
            if paths is None:
                complete = False
            else:
                files += paths
    if len(files) <= MAX_FILES and sum(map(len, files)) <= MAX_FILES_LENGTH:
        return tuple(files), complete
    once = list(dict.fromkeys(files))
    ends = accumulate(map(len, once[:MAX_FILES]))
    kept = [path for path, end in zip(once, ends, strict=False) if end <= MAX_FILES_LENGTH]
    return tuple(kept), complete and len(kept) == len(once)


def head_message(commit: Commit | None) -> str:
    """The head commit's message, as much of it as is kept."""
    return (commit.message or "")[:MAX_MESSAGE] if commit else ""
