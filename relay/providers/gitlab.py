"""GitLab.com and self-managed GitLab.

https://docs.gitlab.com/user/project/integrations/webhooks/
https://docs.gitlab.com/user/project/integrations/webhook_events/
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from relay.errors import Malformed, Unauthorized
from relay.events.event import MAX_TIME, Action, Event, Ignored, Number, Person, PullRequest, Push
from relay.providers.dialect import Headers, ReadsFiles, always
from relay.providers.payloads import (
    Author,
    Commit,
    changed_files,
    decode,
    head_message,
    is_no_commit,
    person,
)
from relay.providers.signatures import (
    HmacKeys,
    any_equal,
    checked_secrets,
    fingerprint,
    from_base64,
)

TOKEN_PREFIX = "whsec_"  # noqa: S105

_ACTIONS: dict[str, Action] = {
    "open": "opened",
    "reopen": "reopened",
    "close": "closed",
    "merge": "closed",
}


class _Project(msgspec.Struct):
    path_with_namespace: str = ""


class _User(msgspec.Struct):
    username: str | None = None


class _Push(msgspec.Struct):
    ref: str
    before: str
    after: str
    project: _Project | None = None
    commits: list[Commit] | None = None
    total_commits_count: int | None = None
    user_username: str | None = None


class _LastCommit(msgspec.Struct):
    id: str
    author: Author | None = None


class _Label(msgspec.Struct):
    title: str | None = None


class _MergeRequest(msgspec.Struct):
    iid: Number
    source_branch: str
    target_branch: str
    action: str | None = None
    oldrev: str | None = None
    title: str | None = None
    updated_at: str | None = None
    draft: bool | None = None
    work_in_progress: bool | None = None
    source_project_id: int | None = None
    target_project_id: int | None = None
    source: _Project | None = None
    target: _Project | None = None
    last_commit: _LastCommit | None = None


class _DraftChange(msgspec.Struct):
    previous: bool | None = None
    current: bool | None = None


class _Changes(msgspec.Struct):
    draft: _DraftChange | None = None
    labels: Any = None
    description: Any = None


class _MergeRequestEvent(msgspec.Struct):
    object_attributes: _MergeRequest
    project: _Project | None = None
    user: _User | None = None
    labels: list[_Label] | None = None
    changes: _Changes | None = None


class _SystemHook(msgspec.Struct):
    object_kind: str | None = None
    event_name: str | None = None


_push = msgspec.json.Decoder(_Push)
_merge_request = msgspec.json.Decoder(_MergeRequestEvent)
_system_hook = msgspec.json.Decoder(_SystemHook)


class GitLab:
    """X-Gitlab-Token, which is the secret itself, or a signing token's signature.

    A request that carries a signature is judged by it alone where signing tokens are configured:
    a wrong signature is not rescued by a right token. During the move from one to the other a
    source may list both; once every webhook signs, drop ``secrets``.
    """

    name: ClassVar[str] = "gitlab"

    def __init__(
        self, secrets: Sequence[str], signing_tokens: Sequence[str] = (), tolerance: float = 300
    ) -> None:
        """See Dialect."""
        if not secrets and not signing_tokens:
            raise ValueError("gitlab needs secrets or signing_tokens")
        self._secrets = checked_secrets(secrets)
        self._signing = [signing_key(token) for token in signing_tokens]
        self._keys = HmacKeys(self._signing)
        self._tolerance = tolerance

    def require(self, headers: Headers) -> None:
        """See Dialect.require. A token vouches without a body, so a wrong one ends it here."""
        if self._signs(headers):
            return
        if not self._secrets:
            raise Unauthorized("webhook-signature is missing: the webhook has no signing token set")
        if "X-Gitlab-Token" not in headers:
            raise Unauthorized("X-Gitlab-Token is missing: the webhook has no secret token set")
        if not any_equal(self._secrets, headers["X-Gitlab-Token"]):
            raise Unauthorized("X-Gitlab-Token is none of the configured secrets")

    def verify(self, headers: Headers, body: bytes, now: float) -> str:
        """See Dialect.verify. A push of GitLab's says nothing that another one, which moves the
        same branch the same way, does not say too. Its id is as good as its body here: either both
        are signed, or whoever has seen the token can make up both.
        """
        self.require(headers)
        if self._signs(headers):
            self._verify_signature(headers, body, now)
        return fingerprint(self.delivery_id(headers).encode(errors="surrogateescape"), body)

    def delivery_id(self, headers: Headers) -> str:
        """Idempotency-Key, which GitLab keeps the same on its retries; webhook-id equals it."""
        return headers.get("Idempotency-Key") or headers.get("webhook-id", "")

    def parse(
        self, headers: Headers, body: bytes, reads_files: ReadsFiles = always
    ) -> Event | Ignored:
        """See Dialect.parse."""
        name = headers.get("X-Gitlab-Event", "")
        if name == "System Hook":
            hook = decode(_system_hook, body)
            kind = hook.object_kind or hook.event_name or ""
            name = {
                "push": "Push Hook",
                "tag_push": "Tag Push Hook",
                "merge_request": "Merge Request Hook",
            }.get(kind, f"System Hook {kind}")
        match name:
            case "Push Hook" | "Tag Push Hook":
                return _translate_push(decode(_push, body), reads_files)
            case "Merge Request Hook":
                return _translate_merge_request(decode(_merge_request, body))
            case "":
                raise Malformed("X-Gitlab-Event is missing")
            case _:
                return Ignored(f"{name[:64]} events never deploy")

    def sign(self, body: bytes, kind: str, delivery_id: str, now: float) -> dict[str, str]:
        """See Dialect.sign."""
        events = {"pull_request": "Merge Request Hook", "tag": "Tag Push Hook"}
        headers = {
            "Content-Type": "application/json",
            "X-Gitlab-Event": events.get(kind, "Push Hook"),
            "Idempotency-Key": delivery_id,
        }
        if self._secrets:
            headers["X-Gitlab-Token"] = self._secrets[0].decode()
        if self._signing:
            stamp = str(int(now))
            [signature, *_] = self._keys.digests(f"{delivery_id}.{stamp}.".encode(), body)
            headers |= {
                "webhook-id": delivery_id,
                "webhook-timestamp": stamp,
                "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
            }
        return headers

    def _signs(self, headers: Headers) -> bool:
        return bool(self._signing) and "webhook-signature" in headers

    def _verify_signature(self, headers: Headers, body: bytes, now: float) -> None:
        sent_id = headers.get("webhook-id", "")
        stamp = headers.get("webhook-timestamp", "")
        signatures = [
            from_base64(value.removeprefix("v1,"))
            for value in headers["webhook-signature"].split()[:16]
            if value.startswith("v1,")
        ]
        signed = f"{sent_id}.{stamp}.".encode(errors="surrogateescape")
        if not self._keys.vouch(signatures, signed, body):
            raise Unauthorized("no configured signing token made this signature")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
            raise Unauthorized("webhook-timestamp is not a number of seconds")
        away = abs(now - int(stamp))
        if away > self._tolerance:
            raise Unauthorized(
                f"webhook-timestamp is {math.ceil(away)} s away from now, "
                f"more than the {self._tolerance:g} s allowed"
            )


def signing_key(token: str) -> bytes:
    """The HMAC key of a ``whsec_…`` token. Raises ValueError without quoting it."""
    key = from_base64(token.removeprefix(TOKEN_PREFIX)) if token.startswith(TOKEN_PREFIX) else b""
    if len(key) < 16:
        raise ValueError("a signing token is whsec_ and at least 16 bytes in base64")
    return key


def _translate_push(push: _Push, reads_files: ReadsFiles) -> Push:
    repo = push.project.path_with_namespace if push.project else ""
    if not repo:
        raise Malformed("unexpected payload: project.path_with_namespace is missing")
    commits = push.commits or []
    files, listed = changed_files(commits) if reads_files(repo) else ((), False)
    created, deleted = is_no_commit(push.before), is_no_commit(push.after)
    # GitLab lists 20 commits at most, tells the full number, and says nothing of force.
    total = push.total_commits_count
    complete = (
        listed
        and bool(commits)
        and total is not None
        and total <= len(commits)
        and not (created or deleted)
    )
    head = next((commit for commit in commits if commit.id == push.after), None)
    return Push(
        repo=repo,
        ref=push.ref,
        before=push.before,
        after=push.after,
        created=created,
        deleted=deleted,
        files=files,
        files_complete=complete,
        message=head_message(head),
        author=person(head.author) if head else Person(),
        sender=push.user_username or "",
    )


def _translate_merge_request(event: _MergeRequestEvent) -> PullRequest | Ignored:
    request = event.object_attributes
    action = _action(request, event.changes)
    if action is None:
        return Ignored(f"merge request action {(request.action or 'none')[:64]} never deploys")
    target = request.target or event.project
    repo = (event.project or target or _Project()).path_with_namespace
    repo = repo or (target.path_with_namespace if target else "")
    if not repo or request.last_commit is None:
        raise Malformed("unexpected payload: the project or last_commit is missing")
    author = person(request.last_commit.author)
    return PullRequest(
        repo=repo,
        number=request.iid,
        action=action,
        head_sha=request.last_commit.id,
        head_ref=request.source_branch,
        head_repo=request.source.path_with_namespace if request.source else "",
        base_ref=request.target_branch,
        title=(request.title or "")[:512],
        draft=bool(request.draft or request.work_in_progress),
        fork=(
            request.source_project_id is None
            or request.source_project_id != request.target_project_id
        ),
        merged=request.action == "merge",
        labels=tuple(label.title for label in event.labels or () if label.title),
        # GitLab does not name the request's author; the head commit's author is the next best.
        author=author,
        sender=(event.user.username if event.user else None) or "",
        updated_at=(request.updated_at or "")[:MAX_TIME],
    )


def _action(request: _MergeRequest, changes: _Changes | None) -> Action | None:
    if request.action != "update":
        return _ACTIONS.get(request.action or "")
    if request.oldrev:
        return "synchronize"
    draft = changes.draft if changes else None
    if (
        changes
        and draft
        and (draft.previous, draft.current) == (True, False)
        and changes.labels is None
        and changes.description is None
    ):
        return "ready_for_review"
    return "edited"
