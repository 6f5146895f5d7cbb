"""What GitLab's webhooks say, as events.

https://docs.gitlab.com/user/project/integrations/webhook_events/
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay.errors import Malformed
from relay.events.event import Action, Ignored, Number, Person, PullRequest, Push
from relay.events.timestamp import parse_timestamp
from relay.providers.payloads import (
    ABSENT,
    Author,
    Commit,
    changed_files,
    commit_or_nothing,
    decode,
    head_message,
    is_no_commit,
    person,
    read_id,
    read_time_text,
)
from relay.providers.provider import ReadsFiles

_ACTIONS: dict[str, Action] = {
    "open": "opened",
    "reopen": "reopened",
    "close": "closed",
    "merge": "closed",
}


class _Project(msgspec.Struct):
    path_with_namespace: str = ""
    id: msgspec.Raw = ABSENT


class _User(msgspec.Struct):
    username: str | None = None


class _Push(msgspec.Struct):
    ref: str
    before: str
    after: str
    project: _Project | None = None
    project_id: msgspec.Raw = ABSENT
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
    state: str | None = None
    action: str | None = None
    oldrev: str | None = None
    title: str | None = None
    updated_at: msgspec.Raw = ABSENT
    draft: bool | None = None
    work_in_progress: bool | None = None
    source_project_id: msgspec.Raw = ABSENT
    target_project_id: msgspec.Raw = ABSENT
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


def system_hook_event(body: bytes) -> str:
    """Return the event header that a system hook's body would have as a project's hook."""
    hook = decode(_system_hook, body)
    kind = hook.object_kind or hook.event_name or ""
    return {
        "push": "Push Hook",
        "tag_push": "Tag Push Hook",
        "merge_request": "Merge Request Hook",
    }.get(kind, f"System Hook {kind}")


def parse_push(body: bytes, reads_files: ReadsFiles) -> Push:
    """Return the event of a push or tag push. Raises Malformed."""
    push = decode(_push, body)
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
        repo_id=read_id(push.project.id if push.project else ABSENT) or read_id(push.project_id),
    )


def parse_merge_request(body: bytes) -> PullRequest | Ignored:
    """Return the event of a merge request. Raises Malformed."""
    event = decode(_merge_request, body)
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
    source_id, target_id = read_id(request.source_project_id), read_id(request.target_project_id)
    updated_at = read_time_text(request.updated_at)
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
        fork=not source_id or source_id != target_id,
        merged=request.action == "merge",
        closed=request.state in ("closed", "merged"),
        labels=tuple(label.title for label in event.labels or () if label.title),
        # GitLab does not name the request's author; the head commit's author is the next best.
        author=author,
        sender=(event.user.username if event.user else None) or "",
        updated_at=updated_at,
        repo_id=read_id(event.project.id if event.project else ABSENT) or target_id,
        before_sha=commit_or_nothing(request.oldrev) if action == "synchronize" else "",
        changed_at=parse_timestamp(updated_at),
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
