"""What pages show, without a page: words, the way, the chart, the search, what needs attention."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.archive import Details
from relay.console.chart import HEIGHT, MINUTES, WIDTH, chart
from relay.console.glance import Glance, Seen
from relay.console.live import MOST_WAITING, Watcher
from relay.console.overview import age, figures, groups
from relay.console.search import Asked, asked, filter_of, is_wanted
from relay.console.way import judged, shown, steps
from relay.console.words import actions, clock, moment, note, place, relations, standing
from relay.events import Delivery, Push
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
        ("deploy", record("waiting", waits_for=f"approval {AT}"), ["approve", "cancel"]),
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
        "waiting", waits_for=f"rate {AT}", attempts=2, replay_of="a", superseded_by="production--2"
    )
    assert note(known).startswith("rate until ")
    assert note(known).endswith("; attempt 2; superseded by a newer one; a replay")
    assert relations(known) == [("Superseded by", "production--2"), ("Replay of", "a")]


@pytest.mark.parametrize("status", STATUSES)
def test_where_a_deploy_stands(status: Status) -> None:
    told = standing(record(status, reason="HTTP 404" if status in ("failed", "held") else ""))

    assert bool(told) == (status not in ("cancelled", "stopped", "unknown"))
    assert any(line.bad for line in told) == (status in ("failed", "held"))


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


@given(
    st.lists(st.floats(-100 * 60, 10 * 60), max_size=50),
    st.lists(st.floats(-100 * 60, 10 * 60), max_size=50),
    st.floats(-100 * 60, 60),
)
def test_chart_stays_within_its_frame(
    deliveries: list[float], deploys: list[float], seen: float
) -> None:
    now = 1_795_609_800.0
    times = {
        "deliveries": [now + each for each in deliveries],
        "deploys": [now + each for each in deploys],
    }

    drawn = chart(times, now, now + seen)

    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH for bar in drawn.bars)
    assert all(bar.y >= 0 and bar.y + bar.height == HEIGHT for bar in drawn.bars)
    assert 0 <= drawn.unseen <= WIDTH
    shown_minutes = range(int(now // 60) + 1 - MINUTES, int(now // 60) + 1)
    assert drawn.total == sum(
        int(at // 60) in shown_minutes for each in times.values() for at in each
    )
    assert sum(int(bar.text.split()[1]) for bar in drawn.bars) == drawn.total


def test_chart_says_what_it_shows() -> None:
    now = epoch("2026-11-25T12:30:00Z")
    drawn = chart({"deliveries": [now, now, now - 60], "deploys": [now]}, now, 0)

    assert drawn.text == "In the last hour 3 deliveries and 1 deploys, at most 2 a minute"
    assert [bar.text for bar in drawn.bars] == [
        "12:29 1 deliveries",
        "12:30 2 deliveries",
        "12:30 1 deploys",
    ]


def seen(status: Status, kind: str = "deploy", **more: object) -> Seen:
    now = time.time()
    return Seen("x", kind, status, now - 90, now - 60, "")._replace(**more)  # type: ignore[arg-type]


def glance(*jobs: Seen, cut: frozenset[str] = frozenset()) -> Glance:
    numbers = dict.fromkeys(("queue", "limited", "scheduled", "started", "failed", "finished"), 0)
    return Glance(jobs, numbers, cut)  # type: ignore[arg-type]


def test_what_needs_attention_comes_worst_first() -> None:
    told = groups(
        glance(
            seen("waiting", waits_for="approval x"),
            seen("waiting", waits_for="rate x"),
            seen("failed"),
            seen("failed"),
            seen("failed", is_replayed=True),
            seen("failed", "delivery"),
            seen("held"),
            seen("succeeded"),
            cut=frozenset({"failed"}),
        )
    )

    assert [(group.number, group.what, group.more, group.href) for group in told] == [
        (1, "deploy held", True, "/deploys?status=held"),
        (2, "deploys failed", True, "/deploys?status=failed"),
        (1, "delivery failed to be matched", True, "/deliveries?status=failed"),
        (1, "deploy waiting for approval", False, "/deploys?status=waiting"),
    ]


def test_figures_of_this_moment() -> None:
    jobs = [seen("succeeded")] * 3 + [seen("failed"), seen("waiting"), seen("superseded")]
    old = seen("failed", ended_at=time.time() - 3_601)

    rate, _, _, oldest, _ = figures(glance(*jobs, old), [], time.time())

    assert (rate.value, rate.text) == ("75%", "3 of 4 in the last hour")
    assert oldest.value == "1 min 30 s"
    assert figures(glance(), [], 0.0)[0].value == "none"
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
