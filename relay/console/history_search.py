"""What the history is searched for, as a query string says it, and how pages put a line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from relay.audit_query import Wanted, rest_of
from relay.console.search import MOST_TEXT, beginning_of_commit, globs
from relay.console.words import branch, place
from relay.filtering import since

MOST_NOTE = 400
"""Characters of what a line says besides its columns."""

_IN_COLUMNS = (
    *("repo", "ref", "sha", "kind", "number"),
    *("source", "target", "delivery", "deploy"),
)

_TONES = {"error": "failed", "warning": "waiting"}


class Search(NamedTuple):
    """The fields of the search; what is empty filters nothing."""

    since: str = ""
    until: str = ""
    event: str = ""
    repo: str = ""
    source: str = ""
    target: str = ""
    sha: str = ""
    by: str = ""
    delivery: str = ""
    deploy: str = ""
    cursor: str = ""

    def link(self, **changed: str) -> str:
        """The path of the history with this search."""
        fields = {**self._asdict(), **changed}
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"/history?{query}" if query else "/history"


class Row(NamedTuple):
    """One line of the audit as pages show it."""

    at: str
    event: str
    tone: str
    what: str
    sha: str
    place: str
    where: str
    note: str


def searched(query: Mapping[str, str]) -> Search:
    """The search of a request; fields that there are not are left out."""
    return Search(**{name: query.get(name, "").strip()[:MOST_TEXT] for name in Search._fields})


def wanted_of(search: Search) -> Wanted:
    """Raises ValueError with a sentence for people."""
    fields = ("source", "target", "by", "delivery", "deploy")
    values = {name: [getattr(search, name)] for name in fields if getattr(search, name)}
    events, repos = ([text] if text else [] for text in (search.event, search.repo))
    return wanted(search.since, search.until, events, repos, search.sha, values)


def wanted(
    after: str,
    until: str,
    events: Sequence[str],
    repos: Sequence[str],
    sha: str,
    values: Mapping[str, Sequence[str]],
) -> Wanted:
    """Raises ValueError with a sentence for people."""
    sha = beginning_of_commit(sha)
    return Wanted(
        since(after),
        since(until),
        globs(events, "text"),
        globs(repos, "path", ignore_case=True),
        {name: frozenset(given) for name, given in values.items()},
        (sha,) if sha else (),
    )


def row(entry: Mapping[str, Any]) -> Row:
    """A line in columns, with the page of what it is about."""

    def text(name: str) -> str:
        return str(entry.get(name, ""))

    deploy, delivery = text("deploy"), text("delivery")
    page = place("deploy", deploy) if deploy else place("delivery", delivery) if delivery else ""
    note = rest_of(entry, _IN_COLUMNS)
    return Row(
        at=text("at"),
        event=text("event"),
        tone=_TONES.get(text("level"), ""),
        what=f"{text('repo')} {branch(text('ref'))}".strip() or deploy or delivery,
        sha=text("sha"),
        place=page,
        where=text("target") or text("source"),
        note=note if len(note) <= MOST_NOTE else f"{note[:MOST_NOTE]}…",
    )


def named(entries: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    """What lines name, each once, in their order."""
    found = (str(entry[field]) for entry in entries if entry.get(field))
    return list(dict.fromkeys(found))
