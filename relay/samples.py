"""Small payloads in each provider's form, for trying a set-up without a git server. Pure.

They carry the fields that the providers read and little else.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from typing import Any

from relay.events.event import NO_COMMIT


def sample(
    provider: str,
    kind: str,
    *,
    repo: str = "acme/web",
    branch: str = "main",
    sha: str = "",
    number: int = 1,
    path: str = "README.md",
) -> dict[str, Any]:
    """A ``push``, ``tag`` or ``pull_request`` payload as ``provider`` would send it.

    ``branch`` is the tag's name for a tag and the head branch for a pull request. Without a
    ``sha`` a new one is made up, so that each sample is a commit of its own.
    """
    sha = sha or hashlib.sha1(str(time.time_ns()).encode(), usedforsecurity=False).hexdigest()
    if provider == "gitlab":
        build = _gitlab_merge_request if kind == "pull_request" else _gitlab_push
    else:
        build = _github_pull_request if kind == "pull_request" else _github_push
    ref = f"refs/tags/{branch}" if kind == "tag" else f"refs/heads/{branch}"
    return build(repo=repo, ref=ref, branch=branch, sha=sha, number=number, path=path)


def _repository_id(repo: str) -> int:
    """Return a number for a repository's name: samples of different repositories have different
    ids, as their histories are different."""
    return zlib.crc32(repo.lower().encode()) + 1


def _commit(sha: str, path: str) -> dict[str, Any]:
    return {
        "id": sha,
        "message": "A sample commit",
        "author": {"name": "Sample Author", "email": "author@example.com", "username": "author"},
        "added": [],
        "modified": [path],
        "removed": [],
    }


def _github_push(*, repo: str, ref: str, sha: str, path: str, **_: Any) -> dict[str, Any]:
    is_tag = ref.startswith("refs/tags/")
    return {
        "ref": ref,
        "before": NO_COMMIT if is_tag else "1" * 40,
        "after": sha,
        "created": is_tag,
        "deleted": False,
        "forced": False,
        "total_commits": 1,
        "commits": [_commit(sha, path)],
        "head_commit": _commit(sha, path),
        "repository": {
            "full_name": repo,
            "id": _repository_id(repo),
            "pushed_at": int(time.time()),
        },
        "pusher": {"name": "author", "login": "author"},
        "sender": {"login": "author"},
    }


def _github_pull_request(
    *, repo: str, branch: str, sha: str, number: int, **_: Any
) -> dict[str, Any]:
    return {
        "action": "opened",
        "number": number,
        "pull_request": {
            "number": number,
            "title": "A sample pull request",
            "draft": False,
            "merged": False,
            "labels": [],
            "user": {"login": "author"},
            "head": {"ref": branch, "sha": sha, "repo": {"full_name": repo}},
            "base": {"ref": "main", "sha": "1" * 40, "repo": {"full_name": repo}},
        },
        "repository": {"full_name": repo, "id": _repository_id(repo)},
        "sender": {"login": "author"},
    }


def _gitlab_push(*, repo: str, ref: str, sha: str, path: str, **_: Any) -> dict[str, Any]:
    is_tag = ref.startswith("refs/tags/")
    return {
        "object_kind": "tag_push" if is_tag else "push",
        "ref": ref,
        "before": NO_COMMIT if is_tag else "1" * 40,
        "after": sha,
        "checkout_sha": sha,
        "user_username": "author",
        "project_id": _repository_id(repo),
        "project": {"path_with_namespace": repo, "id": _repository_id(repo)},
        "commits": [_commit(sha, path)],
        "total_commits_count": 1,
    }


def _gitlab_merge_request(
    *, repo: str, branch: str, sha: str, number: int, **_: Any
) -> dict[str, Any]:
    author = {"name": "Sample Author", "email": "author@example.com"}
    return {
        "object_kind": "merge_request",
        "user": {"username": "author"},
        "project": {"path_with_namespace": repo, "id": _repository_id(repo)},
        "object_attributes": {
            "iid": number,
            "action": "open",
            "state": "opened",
            "title": "A sample merge request",
            "draft": False,
            "source_branch": branch,
            "target_branch": "main",
            "source_project_id": _repository_id(repo),
            "target_project_id": _repository_id(repo),
            "source": {"path_with_namespace": repo},
            "target": {"path_with_namespace": repo},
            "last_commit": {"id": sha, "message": "A sample commit", "author": author},
        },
        "labels": [],
        "changes": {},
    }
