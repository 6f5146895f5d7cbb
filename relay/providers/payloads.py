"""What the providers' payloads have in common: decoding them, commits, and the "no commit" hash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec

from relay.errors import Malformed
from relay.events.event import MAX_FILES, MAX_FILES_LENGTH, MAX_MESSAGE, MAX_TIME, Person
from relay.events.timestamp import parse_timestamp

T = TypeVar("T")

FORM = "application/x-www-form-urlencoded"

ABSENT = msgspec.Raw(b"null")
"""What a field has that is read only if its type fits: a value of another type is no error."""

_TEXT_ID = re.compile(r"[A-Za-z0-9{}_.:-]{1,64}")

_scalar: msgspec.json.Decoder[int | str | None] = msgspec.json.Decoder(int | str | None)


class Author(msgspec.Struct):
    name: str | None = None
    email: str | None = None
    username: str | None = None


class CommitFiles(msgspec.Struct):
    """The files that a commit changed."""

    added: list[str] | None = None
    modified: list[str] | None = None
    removed: list[str] | None = None


class Commit(CommitFiles):
    id: str = ""
    message: str | None = None
    author: Author | None = None


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The fields a provider reads of a JSON body. Raises Malformed for anything else."""
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


def read_scalar(raw: msgspec.Raw) -> int | str | None:
    """Return the whole number or the text that a value is; None for any other value."""
    try:
        return _scalar.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_id(raw: msgspec.Raw) -> str:
    """Return a repository's id as text; empty where the value is none.

    An id is a positive integer below 2**63, or up to 64 letters, digits and ``{}_.:-``. Zero is
    what servers written in Go send where no id is set; it would be the same for all repositories.
    """
    value = read_scalar(raw)
    if isinstance(value, str):
        return value if _TEXT_ID.fullmatch(value) else ""
    return str(value) if value is not None and 0 < value < 2**63 else ""


def read_clock(raw: msgspec.Raw) -> float | None:
    """Return a time in seconds since the Unix epoch; None where the value is none."""
    return parse_timestamp(read_scalar(raw))


def read_time_text(raw: msgspec.Raw) -> str:
    """Return a time as its sender writes it; empty where the value is no text."""
    value = read_scalar(raw)
    return value[:MAX_TIME] if isinstance(value, str) else ""


def commit_or_nothing(sha: str | None) -> str:
    """Return a commit's name; empty for zeros and for what is too long to be one."""
    return sha if sha and len(sha) <= 64 and not is_no_commit(sha) else ""


def is_no_commit(sha: str) -> bool:
    """All zeros, as senders write where there is no commit; 64 of them in SHA-256 repositories."""
    return not sha.strip("0")


def person(author: Author | None) -> Person:
    """An author as far as the payload tells."""
    if author is None:
        return Person()
    return Person(name=author.name or "", email=author.email or "", login=author.username or "")


def changed_files(commits: Sequence[CommitFiles]) -> tuple[tuple[str, ...], bool]:
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
