"""Pages of lists against a plain filter of all rows."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events.deploy_life import STATUSES
from relay.ledger.filters import Filter, branch_patterns, repo_patterns
from relay.ledger.records import DELIVERY_STATUSES, VERDICTS, RecordKind
from relay.ledger.search import BOUNDS, search
from relay.ledger.sqlite import SQLiteReader, system_clock
from relay.ledger.ways import LATEST, Bounds
from tests.relay.ledger.filled import AT, FilledLedger

SECOND = 1_000_000

SOURCES = ("github", "gitlab")
REPOS = ("acme/web", "Acme/Web", "acme/docs", "other/web")
BRANCHES = ("main", "release/1", "release/2", "feature/a_b", "feature/ab")
AUTHORS = ("ada\nAda Lovelace\nada@example.com", "bob", "Ada", "")
MESSAGES = ("Add a page", "Fix the page", "fix: Ünïcode things", "")
SHAS = ("2f" + "0" * 38, "2f1" + "0" * 37, "ab" + "1" * 38, "")
TARGETS = ("production", "preview", "50%_off")
ROUTES = ("web", "docs")

deliveries = st.fixed_dictionaries(
    {
        "source": st.sampled_from(SOURCES),
        "repo": st.sampled_from(REPOS),
        "branch": st.sampled_from(BRANCHES),
        "author": st.sampled_from(AUTHORS),
        "message": st.sampled_from(MESSAGES),
        "sha": st.sampled_from(SHAS),
        "verdict": st.sampled_from(VERDICTS),
        "status": st.sampled_from(DELIVERY_STATUSES),
        "received_at": st.integers(0, 9).map(lambda second: AT + second * SECOND),
    }
)

deploys = st.fixed_dictionaries(
    {
        "delivery": st.integers(1, 4),
        "target": st.sampled_from(TARGETS),
        "route": st.sampled_from(ROUTES),
        "status": st.sampled_from(STATUSES),
        "overtaken": st.integers(0, 1),
        "replayed_by": st.sampled_from([None, None, 1]),
        "created_at": st.integers(0, 9).map(lambda second: AT + second * SECOND),
    }
)


def _some(*values: str) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), min_size=1, max_size=3)


times = st.sampled_from([AT / SECOND + second for second in (0, 1, 4.5, 6, 9, 20)])

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "statuses": _some(*STATUSES, *DELIVERY_STATUSES),
    "sources": _some(*SOURCES, "nobody"),
    "targets": _some(*TARGETS),
    "routes": _some(*ROUTES),
    "verdicts": _some(*VERDICTS),
    "repos": st.sampled_from(
        [("acme/web",), ("ACME/*",), ("re:.*web",), ("!acme/docs",), ("acme/*", "!acme/web")]
    ).map(repo_patterns),
    "branches": st.sampled_from(
        [("main",), ("release/*", "main"), ("*a_b",), ("re:.*1",), ("!main",), ("nothing/*",)]
    ).map(branch_patterns),
    "sha": st.sampled_from(["2f", "2f1", "ab" + "1" * 38, "f"]),
    "author": st.sampled_from(["ada", "ADA LOVELACE", "nobody"]),
    "words": st.sampled_from(["page", "the PAGE", "unicode", "fix!", "?!", "nothing"]),
    "since": times,
    "until": times,
    "attention": st.just(True),
}

filters = st.lists(st.sampled_from(list(VALUES)), max_size=3, unique=True).flatmap(
    lambda names: st.builds(Filter, **{name: VALUES[name] for name in names})
)


def fits(row: dict[str, Any], chosen: Filter) -> bool:
    """The model: one row against one filter, as plainly as can be."""
    at = row["at"] / SECOND
    has = set(re.findall(r"[a-z0-9]+", row["message"].lower().translate({0xFC: "u", 0xEF: "i"})))
    words = re.findall(r"[a-z0-9]+", chosen.words.lower())
    needs = row["status"] in ("failed", "uncertain")
    return all(
        (
            not chosen.statuses or row["status"] in chosen.statuses,
            not chosen.sources or row["source"] in chosen.sources,
            not chosen.targets or row.get("target") in chosen.targets,
            not chosen.routes or row.get("route") in chosen.routes,
            not chosen.verdicts or row["verdict"] in chosen.verdicts,
            chosen.repos is None or chosen.repos.matches(row["repo"]),
            chosen.branches is None or chosen.branches.matches(row["branch"]),
            row["sha"].startswith(chosen.sha),
            not chosen.author
            or chosen.author.lower() in [form.lower() for form in row["author"].split("\n")],
            not chosen.words or (bool(words) and has.issuperset(words)),
            at >= chosen.since,
            not chosen.until or at < chosen.until,
            not chosen.attention
            or ("target" in row and needs and not row["overtaken"] and not row["replayed_by"]),
        )
    )


SMALL = Bounds(compared=2, few_deliveries=1, deliveries=2, names=1, slice=2)
"""Bounds as small as the lists of these tests; but for times, which come in any order here."""


def _rows(filled: FilledLedger, kind: RecordKind) -> list[dict[str, Any]]:
    """All deliveries or deploys with what filters are about, the newest first."""
    query = "SELECT *, received_at AS at FROM delivery ORDER BY id DESC"
    if kind == "deploy":
        query = (
            "SELECT v.source, v.sha, v.author, v.message, v.verdict, d.*, t.name AS target,"
            " d.created_at AS at FROM deploy d JOIN delivery v ON v.id = d.delivery"
            " JOIN target t ON t.id = d.target ORDER BY d.id DESC"
        )
    # Of two columns of one name the last one counts.
    return [dict(zip(row.keys(), tuple(row), strict=True)) for row in filled.sql.execute(query)]


def _fill(
    filled: FilledLedger, received: list[dict[str, Any]], queued: list[dict[str, Any]]
) -> None:
    for row in received:
        filled.delivery(**row, ref_name=f"refs/heads/{row['branch']}")
    for row in queued:
        delivery = min(row["delivery"], len(received))
        filled.deploy(**{**row, "delivery": delivery})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(deliveries, min_size=1, max_size=12),
    st.lists(deploys, max_size=12),
    st.lists(filters, min_size=1, max_size=12),
    st.integers(1, 13),
)
def test_pages_are_exact(
    received: list[dict[str, Any]],
    queued: list[dict[str, Any]],
    chosen: list[Filter],
    size: int,
) -> None:
    """Each page of each size of each filter, by the way that is taken and by all others."""
    with TemporaryDirectory() as folder:
        filled = FilledLedger(Path(folder))
        _fill(filled, received, queued)
        reader = SQLiteReader(filled.sql, system_clock)
        for kind in ("delivery", "deploy"):
            for one in chosen:
                right = [row["id"] for row in _rows(filled, kind) if fits(row, one)]
                for bounds in (BOUNDS, SMALL):
                    assert asyncio.run(_paged(reader, kind, one, size, bounds)) == right, (
                        kind,
                        one,
                        bounds,
                    )
        filled.close()


async def _paged(
    reader: SQLiteReader, kind: RecordKind, chosen: Filter, size: int, bounds: Bounds
) -> list[int]:
    numbers: list[int] = []
    before = LATEST
    while page := (await search(reader, kind, chosen, size, before, bounds)).numbers:
        assert len(page) <= size
        numbers += page
        before = page[-1]
    return numbers
