"""What pages show, without a page: words, the way, the chart, the search, what needs attention."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.archive import Details
from relay.console.chart import HEIGHT, chart
from relay.console.live import MOST_WAITING, Watcher
from relay.console.overview import age, figures, groups, view
from relay.console.search import Asked, asked, filter_of, is_wanted
from relay.console.way import judged, shown, steps
from relay.console.words import actions, clock, moment, note, place, relations, standing
from relay.events.event import Delivery, Push
from relay.overview import Overview
from relay.pace import Minute
from relay.reading import End, Record, epoch, iso
from relay.statuses import STATUSES, Kind, Status

NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
AT = "2026-11-25T12:00:01.500000Z"


def record(status: Status = "succeeded", **fields: object) -> Record:
    return Record(
        **{  # type: ignore[arg-type]
            "id": "production--1",
            "status": status,
            "repo": "acme/web",
            "ref": "refs/heads/main",
            "sha": "ab" * 20,
            "target": "production",
            "route": "web",
            "created_at": AT,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("at", "short"),
    [
        (AT, "12:00:01"),
        ("2026-11-24T23:59:59Z", "24 Nov 23:59"),
        ("2026-11-25T13:00:00+02:00", "11:00:00"),
        ("soon", "soon"),
    ],
)
def test_times(at: str, short: str) -> None:
    assert clock(at, NOW) == short


def test_whole_times() -> None:
    assert moment(AT) == "2026-11-25 12:00:01 UTC"
    assert moment("") == ""


@pytest.mark.parametrize(
    ("kind", "known", "possible"),
    [
        ("deploy", record("failed"), ["replay"]),
        ("deploy", record("held"), ["replay"]),
        ("deploy", record("failed", replayed_by="production--1-2"), []),
        ("deploy", record("waiting"), ["cancel"]),
        ("deploy", record("waiting", waits_for="approval", waits_until=AT), ["approve", "cancel"]),
        ("deploy", record("retrying"), ["cancel"]),
        ("deploy", record("running"), []),
        ("deploy", record("succeeded"), []),
        ("delivery", record("waiting"), ["cancel"]),
        ("delivery", record("waiting", deploys=["production--1"]), []),
    ],
)
def test_what_may_be_done(kind: Kind, known: Record, possible: list[str]) -> None:
    assert actions(known, kind) == possible


def test_notes_and_relations() -> None:
    known = record(
        "waiting",
        waits_for="rate",
        waits_until=AT,
        attempts=2,
        replay_of="a",
        superseded_by="production--2",
    )
    assert note(known).startswith(f"waits until {clock(AT)}, when the rate allows it; ")
    assert note(known).endswith("; attempt 2; superseded by a newer one; a replay")
    assert relations(known) == [("Superseded by", "production--2"), ("Replay of", "a")]


@pytest.mark.parametrize("status", STATUSES)
def test_where_a_deploy_stands(status: Status) -> None:
    told = standing(record(status, reason="HTTP 404" if status in ("failed", "held") else ""))

    assert bool(told) == (status not in ("cancelled", "stopped", "unknown"))
    assert any(line.bad for line in told) == (status in ("failed", "held"))


def test_what_a_deploy_waits_for_is_a_sentence_with_its_time() -> None:
    [line] = standing(record("waiting", waits_for="hours", waits_until=AT))

    assert (line.text, line.at) == ("Waits for its target's hours, until", AT)


def test_ids_in_places_are_quoted() -> None:
    assert place("delivery", "a/../b?c#d\"'<") == "/deliveries/a%2F..%2Fb%3Fc%23d%22%27%3C"


def test_way_of_a_delivery_that_waits_for_a_worker() -> None:
    event = Push("acme/web", "refs/heads/main", "1" * 40, "2" * 40)
    delivery = Delivery("github--1", "github", epoch(AT) - 5, event)
    details = Details(record("waiting", source="github"), {}, [])

    received, queued, matching = steps(details, delivery, [], {}, [])

    assert received.at == iso(epoch(AT) - 5)
    assert queued.text == "in Redis 5.0 s later"
    assert matching.text == "Not yet. 0 of 0 routes would match now."


def test_way_tells_when_it_was_matched() -> None:
    runs = [End("3", "successful"), End("2", "failed", "x"), End("1", "successful")]
    details = Details(record("failed", deploys=["production--1"]), {}, runs)

    queued, matched, deploy = steps(details, None, [record("failed", attempts=1)], {}, [])

    assert (queued.title, matched.at) == ("Queued", "1")
    assert deploy.deploy is not None
    assert deploy.deploy.no_calls.startswith("1 attempt was made")
    assert shown(record("waiting"), ()).no_calls == "No attempt yet."
    assert judged([], "acme/web") == []


@given(st.lists(st.tuples(*(st.integers(0, 10_000) for _ in range(4))), min_size=1, max_size=60))
def test_chart_stays_within_its_frame(counts: list[tuple[int, int, int, int]]) -> None:
    minutes = [
        Minute(at=60 * number, deliveries=one, succeeded=good, failed=bad, held=held)
        for number, (one, good, bad, held) in enumerate(counts)
    ]

    drawn = chart(minutes)

    assert all(bar.x >= 0 and bar.x + bar.width <= drawn.width for bar in drawn.bars)
    assert all(bar.y >= 0 and bar.y + bar.height == HEIGHT for bar in drawn.bars)
    assert drawn.total == sum(map(sum, counts))
    assert sum(int(bar.text.split()[1]) for bar in drawn.bars) == drawn.total


def test_chart_says_what_it_shows() -> None:
    at = int(epoch("2026-11-25T12:29:00Z"))
    drawn = chart([Minute(at=at, deliveries=1), Minute(at=at + 60, deliveries=2, succeeded=1)])

    assert drawn.text == "In the last hour 3 deliveries and 1 deploys, at most 2 a minute"
    assert [bar.text for bar in drawn.bars] == [
        "12:29 1 deliveries",
        "12:30 2 deliveries",
        "12:30 1 deploys",
    ]
    assert chart([]).bars == []


def seen(**more: Any) -> Overview:
    numbers = dict.fromkeys(
        ("queued", "limited", "scheduled", "running", "dead", "failed", "held", "unmatched"), 0
    )
    known: dict[str, Any] = {
        **numbers,
        "at": epoch(AT),
        "minutes": [],
        "oldest_at": None,
        "workers": [],
        "targets": [],
        "approval": 0,
        "troubled": [],
        "asking": [],
        "newest": [],
    }
    return Overview(**{**known, **more})


def test_what_needs_attention_comes_worst_first() -> None:
    told = groups(seen(approval=1, failed=2, unmatched=1, held=1))

    assert [(group.number, group.what, group.href) for group in told] == [
        (1, "deploy held", "/deploys?status=held"),
        (2, "deploys failed", "/deploys?status=failed"),
        (1, "delivery failed to be matched", "/deliveries?status=failed"),
        (1, "deploy waiting for approval", "/deploys?status=waiting"),
    ]
    assert groups(seen()) == []
    assert not view(seen()).attention


def test_what_needs_attention_is_shown_newest_first_and_not_all_of_it() -> None:
    many = [record("failed", id=f"production--{n}", created_at=f"2026-11-2{n}") for n in range(9)]
    asking = record("waiting", id="production--asking", created_at="2026-11-30")

    shown_first, *others = view(seen(failed=9, troubled=many, asking=[asking])).attention.records

    assert shown_first == ("deploy", asking)
    assert [one.id for _, one in others] == [f"production--{n}" for n in (8, 7, 6, 5, 4, 3, 2)]


def test_figures_of_this_moment() -> None:
    minutes = [Minute(at=0, succeeded=2), Minute(at=60, succeeded=1, failed=1)]

    rate, queued, _, oldest, _ = figures(
        seen(minutes=minutes, queued=1_200, oldest_at=epoch(AT) - 90)
    )

    assert (rate.value, rate.text) == ("75%", "3 of 4 in the last hour")
    assert (queued.value, queued.text) == ("1,200", "for no workers")
    assert (oldest.value, oldest.text) == ("1 min 30 s", "of the first 200 in the queue")
    assert [figure.value for figure in figures(seen())] == ["none", "0", "0", "none", "0"]
    assert [age(each) for each in (-1, 59, 3_599, 3_600, 90_000)] == [
        "0 s",
        "59 s",
        "59 min 59 s",
        "1 h 0 min",
        "1 d 1 h",
    ]


def test_search_fields_are_bounded_and_kept_in_links() -> None:
    search = asked({"repo": " acme/* ", "author": "x" * 900, "nonsense": "1"})

    assert search == Asked(repo="acme/*", author="x" * 400)
    assert search._replace(author="a&b").link("deploy", cursor="c d") == (
        "/deploys?repo=acme%2F%2A&author=a%26b&cursor=c+d"
    )
    assert Asked(cursor="x").searches is False


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        (Asked(), True),
        (Asked(repo="ACME/*", branch="m*", sha="ABAB", target="production", route="web"), True),
        (Asked(repo="acme"), False),
        (Asked(branch="topic"), False),
        (Asked(sha="ac"), False),
        (Asked(target="other"), False),
        (Asked(route="other"), False),
        (Asked(status="failed"), False),
        (Asked(since="2026-11-25T12:00:02Z"), False),
    ],
)
def test_live_rows_are_those_of_the_search(search: Asked, wanted: bool) -> None:
    assert is_wanted("deploy", filter_of("deploy", search), record()) is wanted


async def test_slow_page_is_told_to_look_again() -> None:
    watcher = Watcher(lambda *_: True, rows=True)
    for number in range(MOST_WAITING + 1):
        watcher.tell(b"%d" % number)

    assert await watcher.next() == b"event: missed\ndata: \n\n"


def test_records_are_compared_whole() -> None:
    """The poller tells of whatever changes in a record."""
    assert record() == msgspec.structs.replace(record(), attempts=0)
    assert record() != msgspec.structs.replace(record(), attempts=1)
