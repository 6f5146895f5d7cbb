"""Signed GitHub pushes of realistic size, each of them different, and all of equal length.

The shape and the order of keys are GitHub's; names and values are made up.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

SECRET = "benchmark-secret-0f9a1c"
SOURCE = "github"

BRANCHES = 512
"""Branches that pushes go to in turn: on one branch there is one call at a time."""

_SHA = "@" * 40
_BEFORE = "%" * 40
_NOTE = "#" * 12
_BRANCH = "change-SEED-PLACE"
_CLOCK = 1_000_000_001
"""Each stands in the template for something of equal length."""

_COMMITS = {8: 1, 80: 88}
"""Kilobytes of a body, and how many commits make one of about that size."""

_WORDS = (
    "add", "fix", "move", "cache", "index", "retry", "order", "invoice", "basket", "search", "page",
    "router", "header", "schema", "query", "worker", "button", "locale", "report", "import",
)  # fmt: skip
_FOLDERS = ("apps/web/src", "apps/api/handlers", "packages/ui/components", "docs", "tests/unit")
_ENDINGS = ("ts", "tsx", "py", "go", "md", "css")

_REPOSITORY_URLS = (
    "forks", "keys{/key_id}", "collaborators{/collaborator}", "teams", "hooks",
    "issues/events{/number}", "events", "assignees{/user}", "branches{/branch}", "tags",
    "git/blobs{/sha}", "git/tags{/sha}", "git/refs{/sha}", "git/trees{/sha}", "statuses/{sha}",
    "languages", "stargazers", "contributors", "subscribers", "subscription", "commits{/sha}",
    "git/commits{/sha}", "comments{/number}", "issues/comments{/number}", "contents/{+path}",
    "compare/{base}...{head}", "merges", "{archive_format}{/ref}", "downloads", "issues{/number}",
    "pulls{/number}", "milestones{/number}", "notifications{?since,all,participating}",
    "labels{/name}", "releases{/id}", "deployments",
)  # fmt: skip
_USER_URLS = (
    "followers", "following{/other_user}", "gists{/gist_id}", "starred{/owner}{/repo}",
    "subscriptions", "orgs", "repos", "events{/privacy}", "received_events",
)  # fmt: skip


class Pushes:
    """Pushes to branches of one repository, as many as are asked for. Each starts where the one
    before on its branch has ended."""

    def __init__(self, size: int, *, repo: str = "acme/web", branches: int = BRANCHES) -> None:
        """``size`` is 8 or 80, the kilobytes of a body."""
        whole = json.dumps(_push(_COMMITS[size], repo), separators=(",", ":")).encode()
        self._template = whole
        self._branches = branches
        self.body_bytes = len(whole)

    def bodies(self, seed: int) -> Iterator[bytes]:
        """Bodies that are all different, and different for every seed."""
        number, began = 0, int(time.time())
        while True:
            sha = _commit_of(seed, number)
            branch = f"change-{seed % 10_000:04}-{number % self._branches:05}"
            yield (
                self._template.replace(_SHA.encode(), sha.encode())
                .replace(_BEFORE.encode(), _commit_of(seed, number - self._branches).encode())
                .replace(_NOTE.encode(), sha[-12:].encode())
                .replace(_BRANCH.encode(), branch.encode())
                .replace(str(_CLOCK).encode(), str(began + number // self._branches).encode())
            )
            number += 1

    def requests(self, path: str, seed: int) -> Iterator[bytes]:
        """Complete HTTP requests with a valid signature and a delivery id of their own."""
        key = hmac.new(SECRET.encode(), digestmod=hashlib.sha256)
        ids = random.Random(seed)  # noqa: S311
        head = (
            f"POST {path} HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\n"
            "User-Agent: GitHub-Hookshot/0000000\r\n"
            "Accept: */*\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {self.body_bytes}\r\n"
            "X-GitHub-Event: push\r\n"
            "X-GitHub-Hook-ID: 100000001\r\n"
            "X-GitHub-Hook-Installation-Target-ID: 200000002\r\n"
            "X-GitHub-Hook-Installation-Target-Type: repository\r\n"
            "X-GitHub-Delivery: %b\r\n"
            "X-Hub-Signature-256: sha256=%b\r\n"
            "\r\n%b"
        ).encode()
        for body in self.bodies(seed):
            mac = key.copy()
            mac.update(body)
            delivery = str(uuid.UUID(int=ids.getrandbits(128), version=4))
            yield head % (delivery.encode(), mac.hexdigest().encode(), body)


def signed(body: bytes, number: int) -> dict[str, str]:
    """The headers of one push; every number is another delivery."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": str(uuid.UUID(int=number)),
        "X-Hub-Signature-256": f"sha256={hmac.digest(SECRET.encode(), body, 'sha256').hex()}",
    }


def _commit_of(seed: int, number: int) -> str:
    """Return the commit that a push ends at; numbers below 0 are where branches began."""
    return hashlib.sha1(f"{seed}/{number}".encode(), usedforsecurity=False).hexdigest()


def _push(commits: int, repo: str) -> dict[str, Any]:
    made = random.Random(7)  # noqa: S311
    listed = [_commit(made, repo, _hash(made)) for _ in range(commits - 1)]
    head = _commit(made, repo, _SHA)
    return {
        "ref": f"refs/heads/{_BRANCH}",
        "before": _BEFORE,
        "after": _SHA,
        "repository": _repository(repo),
        "pusher": {"name": "mira-holt", "email": "mira.holt@example.com"},
        "organization": _organization(repo.split("/")[0]),
        "sender": _user("mira-holt", 4_100_017),
        "created": False,
        "deleted": False,
        "forced": False,
        "base_ref": None,
        "compare": f"https://git.example/{repo}/compare/{_hash(made)[:12]}...{_NOTE}",
        "commits": [*listed, head],
        "head_commit": head,
    }


def _hash(made: random.Random) -> str:
    return f"{made.getrandbits(160):040x}"


def _commit(made: random.Random, repo: str, sha: str) -> dict[str, Any]:
    person = {"name": "Mira Holt", "email": "mira.holt@example.com", "username": "mira-holt"}
    note = _NOTE if sha == _SHA else sha[:12]
    words = " ".join(made.choices(_WORDS, k=made.randint(9, 24)))
    return {
        "id": sha,
        "tree_id": _hash(made),
        "distinct": True,
        "message": f"{words.capitalize()}\n\nChange-Id: {note}",
        "timestamp": "2024-05-14T09:26:53+02:00",
        "url": f"https://git.example/{repo}/commit/{sha}",
        "author": person,
        "committer": person,
        "added": _files(made, 4),
        "removed": _files(made, 1),
        "modified": _files(made, 10),
    }


def _files(made: random.Random, most: int) -> list[str]:
    return [
        f"{made.choice(_FOLDERS)}/{'-'.join(made.choices(_WORDS, k=2))}.{made.choice(_ENDINGS)}"
        for _ in range(made.randint(0, most))
    ]


def _repository(repo: str) -> dict[str, Any]:
    owner, name = repo.split("/")
    api = f"https://git.example/repos/{repo}"
    urls = {
        f"{path.split('{')[0].strip('/').replace('/', '_') or 'archive'}_url": f"{api}/{path}"
        for path in _REPOSITORY_URLS
    }
    return {
        "id": 31_000_042,
        "node_id": "R_kgDOB2hKqg",
        "name": name,
        "full_name": repo,
        "private": True,
        "owner": {"name": owner, "email": None, **_user(owner, 4_100_001)},
        "html_url": f"https://git.example/{repo}",
        "description": "What customers see",
        "fork": False,
        "url": f"https://git.example/{repo}",
        **urls,
        "created_at": 1_577_872_800,
        "updated_at": "2024-05-13T16:01:07Z",
        "pushed_at": _CLOCK,
        "git_url": f"git://git.example/{repo}.git",
        "ssh_url": f"git@git.example:{repo}.git",
        "clone_url": f"https://git.example/{repo}.git",
        "svn_url": f"https://git.example/{repo}",
        "homepage": None,
        "size": 48_211,
        "stargazers_count": 3,
        "watchers_count": 3,
        "language": "TypeScript",
        "has_issues": True,
        "has_projects": True,
        "has_downloads": True,
        "has_wiki": False,
        "has_pages": False,
        "forks_count": 2,
        "mirror_url": None,
        "archived": False,
        "disabled": False,
        "open_issues_count": 17,
        "license": None,
        "allow_forking": False,
        "is_template": False,
        "web_commit_signoff_required": False,
        "topics": ["shop", "web"],
        "visibility": "private",
        "forks": 2,
        "open_issues": 17,
        "watchers": 3,
        "default_branch": "main",
        "stargazers": 3,
        "master_branch": "main",
        "organization": owner,
    }


def _organization(name: str) -> dict[str, Any]:
    api = f"https://git.example/orgs/{name}"
    return {
        "login": name,
        "id": 4_100_001,
        "node_id": "O_kgDOAD6PIQ",
        "url": api,
        "repos_url": f"{api}/repos",
        "events_url": f"{api}/events",
        "hooks_url": f"{api}/hooks",
        "issues_url": f"{api}/issues",
        "members_url": f"{api}/members{{/member}}",
        "public_members_url": f"{api}/public_members{{/member}}",
        "avatar_url": "https://git.example/avatars/u/4100001?",
        "description": "",
    }


def _user(login: str, number: int) -> dict[str, Any]:
    api = f"https://git.example/users/{login}"
    return {
        "login": login,
        "id": number,
        "node_id": f"U_kgDOA{number}",
        "avatar_url": f"https://git.example/avatars/u/{number}?",
        "gravatar_id": "",
        "url": api,
        "html_url": f"https://git.example/{login}",
        **{f"{path.split('{')[0]}_url": f"{api}/{path}" for path in _USER_URLS},
        "type": "User",
        "site_admin": False,
    }
