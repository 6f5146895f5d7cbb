"""Pages of lists against a plain filter of all rows."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events.deploy_life import STATUSES
from relay.ledger import lists
from relay.ledger.filters import Filter, branch_patterns, repo_patterns
from relay.ledger.lists import count, list_records
from relay.ledger.queries import named_queries
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


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 3), max_size=12))
def test_pages_stay_exact_while_rows_are_inserted(size: int, arrivals: list[int]) -> None:
    """What was there at the first page comes once, in its order; what came since does not."""
    with TemporaryDirectory() as folder:
        filled = FilledLedger(Path(folder))
        there = [filled.delivery(branch="main") for _ in range(9)]

        def read(before: str) -> tuple[list[str], str]:
            chosen = Filter(branches=branch_patterns(("main",)))
            page = filled.read(
                lambda reader: list_records(reader, "delivery", chosen, size, before)
            )
            return [record.id for record in page.records], page.next

        ids, place = read("")
        for number in arrivals:
            for _ in range(number):
                filled.delivery(branch="main")
            if place:
                more, place = read(place)
                ids += more
        while place:
            more, place = read(place)
            ids += more
        filled.close()
        assert ids == [f"delivery-{number}" for number in reversed(there)]


def test_a_place_is_an_id_of_the_list(tmp_path: Path) -> None:
    filled = FilledLedger(tmp_path)

    with pytest.raises(ValueError, match="'deploy-1' is no delivery after which a list goes on"):
        filled.read(lambda reader: list_records(reader, "delivery", Filter(), 1, "deploy-1"))


@pytest.mark.parametrize("kind", ["delivery", "deploy"])
def test_a_count_stops(kind: RecordKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = FilledLedger(tmp_path)
    for number in range(6):
        filled.delivery(branch="main" if number % 2 else "other")
        filled.deploy(delivery=number + 1)

    def counted(chosen: Filter) -> str:
        return str(filled.read(lambda reader: count(reader, kind, chosen)))

    monkeypatch.setattr(lists, "MOST_COUNTED", 5)
    assert counted(Filter()) == "more than 5"
    assert counted(Filter(branches=branch_patterns(("main",)))) == "3"
    monkeypatch.setattr(lists, "MOST_COUNTED", 6)
    assert counted(Filter()) == "6"


SORTED = {
    "deliveries_of_commit",
    "deploys_of_attention",
    "deploys_that_ask",
}
"""Queries that sort what they read, which is little."""

LISTS = [
    (name, text)
    for name, text in named_queries().items()
    if re.fullmatch(r"(deliveries|deploys|names|last|first)_.*|d[a-z_]*_facts", name)
    or name
    in ("waits", "count_attention", "count_calling", "ends_of_minute", "next_later", "count_due")
]


@pytest.mark.parametrize(("name", "text"), LISTS, ids=[name for name, _ in LISTS])
def test_no_list_reads_a_whole_table(name: str, text: str, tmp_path: Path) -> None:
    """Each query of a list goes by an index, or by ids, whatever the ledger holds."""
    filled = FilledLedger(tmp_path)
    places = dict.fromkeys(re.findall(r":([a-z_]+)", text), 1)

    plan = [row["detail"] for row in filled.sql.execute(f"EXPLAIN QUERY PLAN {text}", places)]

    scans = [
        step
        for step in plan
        if re.match(r"SCAN (d|v|t|deploy|delivery|target)\b", step) and "USING" not in step
    ]
    # The newest of all are the end of the table itself, and no more of it is read than asked for.
    assert not scans, plan
    if name not in SORTED:
        assert not [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step], plan
