"""What pages show, without a page: words, timeline, chart, search, what needs attention."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.console.action_texts import is_forceable, reason_of, warning
from relay.console.actions import LiveNow, Result
from relay.console.chart import HEIGHT, chart
from relay.console.delivery_timeline import judged_routes, shown, steps
from relay.console.history_pages import HistorySearch
from relay.console.history_pages import shown as shown_event
from relay.console.live import MOST_WAITING, Watcher
from relay.console.overview import age, figures, groups, view
from relay.console.read import SINCE
from relay.console.search import Search, filter_of, is_in_list, read_search
from relay.console.words import (
    CHECK_PLATFORM,
    SHAPES,
    actions,
    clock,
    epoch,
    label,
    moment,
    note,
    place,
    relations,
    relative,
    shown_status,
    standing,
)
from relay.events.deploy_life import LIFE, STATUSES, Status, WaitReason
from relay.ledger.actions import REFUSALS
from relay.ledger.details import ActionRecord, Details
from relay.ledger.history import HistoryRow
from relay.ledger.overview import Overview, TargetSeen, WorkerSeen
from relay.ledger.pace import Minute
from relay.ledger.records import DELIVERY_STATUSES, Record, RecordKind, iso
from relay.ledger.rows import microseconds

NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
AT = "2026-11-25T12:00:01.500000Z"


def record(status: str = "succeeded", **fields: object) -> Record:
    return Record(
        **{  # type: ignore[arg-type]
            "id": "deploy-1",
            "status": status,
            "repo": "acme/web",
            "ref": "refs/heads/main",
            "branch": "main",
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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3_599, "59 min ago"),
        (7_200, "2 h ago"),
        (172_799, "47 h ago"),
        (172_800, "2 d ago"),
        (-61, "in 1 min"),
        (-90_000, "in 25 h"),
    ],
)
def test_relative_times(seconds: int, said: str) -> None:
    assert relative(iso(microseconds(NOW.timestamp() - seconds)), NOW) == said
    assert relative("soon", NOW) == "soon"


def test_whole_times() -> None:
    assert moment(AT) == "2026-11-25 12:00:01 UTC"
    assert moment("") == ""


@pytest.mark.parametrize(
    ("kind", "shown_record", "possible"),
    [
        ("deploy", record("failed"), ["replay", "dismiss"]),
        ("deploy", record("uncertain"), ["replay", "dismiss"]),
        ("deploy", record("unknown"), ["replay", "dismiss"]),
        ("deploy", record("dismissed"), ["replay"]),
        ("deploy", record("failed", replayed_by="deploy-2"), []),
        ("deploy", record("waiting"), ["cancel"]),
        ("deploy", record("waiting", waits_for="approval", waits_until=AT), ["approve", "cancel"]),
        ("deploy", record("waiting", waits_for="retry", next_at=AT), ["cancel"]),
        ("deploy", record("calling"), []),
        ("deploy", record("succeeded"), []),
        ("delivery", record("queued"), ["cancel"]),
        ("delivery", record("routed", outcome="waiting"), []),
        ("delivery", record("routed", outcome="failed"), ["replay"]),
        ("delivery", record("ignored"), ["replay"]),
        ("delivery", record("duplicate"), []),
    ],
)
def test_what_may_be_done(kind: RecordKind, shown_record: Record, possible: list[str]) -> None:
    assert actions(shown_record, kind) == possible


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_word_and_a_shape(status: Status) -> None:
    assert label(status) == LIFE[status].label
    assert SHAPES[status]
    possible = actions(record(status, waits_for="approval"), "deploy")
    assert ("approve" in possible) == LIFE[status].is_approvable
    assert ("cancel" in possible) == LIFE[status].is_cancellable
    assert ("replay" in possible) == LIFE[status].is_replayable
    assert ("dismiss" in possible) == LIFE[status].is_dismissable


def test_statuses_look_different() -> None:
    assert all(SHAPES[status] for status in DELIVERY_STATUSES)
    assert label("accepted") == "deploying"
    assert shown_status(record("routed", outcome="failed")) == "failed"
    assert shown_status(record("ignored")) == "ignored"


def test_notes_and_relations() -> None:
    waits = record(
        "waiting",
        waits_for="rate",
        waits_until=AT,
        attempts=2,
        replay_of="deploy-7",
        superseded_by="deploy-2",
    )
    assert note(waits).startswith(f"waits until {clock(AT)}, when the rate allows it; ")
    assert note(waits).endswith("; superseded by a newer one; a replay")
    assert relations(waits) == [("Superseded by", "deploy-2"), ("Replay of", "deploy-7")]
    assert note(record("failed", reason="HTTP 404", overtaken=True)) == (
        "HTTP 404; a newer one has succeeded"
    )
    late = record("ignored", target="", uncertain="it is the first one")
    assert note(late) == "order uncertain"


@pytest.mark.parametrize("status", STATUSES)
def test_where_a_deploy_stands(status: Status) -> None:
    is_bad = status in ("failed", "uncertain")
    lines = standing(record(status, reason="HTTP 404" if is_bad else "", dismissed_by="ada"))

    assert bool(lines) == (status != "cancelled")
    assert any(line.is_bad for line in lines) == is_bad
    assert (CHECK_PLATFORM in [line.text for line in lines]) == (status == "uncertain")


def test_what_is_overtaken_and_what_is_live_is_said() -> None:
    overtaken = standing(record("failed", reason="HTTP 404", overtaken=True))
    assert [line.text for line in overtaken][1].startswith("A newer deploy of its target")
    assert standing(record("succeeded", live=True))[-1].text == "It is live."


@pytest.mark.parametrize("reason", ["", *get_args(WaitReason)])
def test_what_a_deploy_waits_for_is_a_sentence_with_its_time(reason: str) -> None:
    line, *others = standing(record("waiting", waits_for=reason, waits_until=AT))

    assert line.text.startswith(("Waits", "Its call did not succeed."))
    # What tells no time ends by itself; "is called in 5 min" ends with the time.
    assert line.text.endswith((".", "begin", "called", "again", "fails", "made", "tried"))
    assert line.at == AT
    assert others == []


def test_ids_in_places_are_quoted() -> None:
    assert place("delivery", "a/../b?c#d\"'<") == "/deliveries/a%2F..%2Fb%3Fc%23d%22%27%3C"


def test_timeline_of_a_delivery_that_waits_for_a_worker() -> None:
    details = Details(record=record("queued", source="github", verdict="new"), event={})

    received, routing = steps(details, {}, [])

    assert (received.at, received.text) == (AT, "from github, signature verified")
    assert received.lines == ["It is a new state of its ref."]
    assert routing.text == "Not yet. 0 of 0 routes match now."


def test_timeline_says_what_the_history_of_the_ref_says() -> None:
    doubt = "uncertain order: it is already old"
    late = record("ignored", verdict="late", uncertain=doubt, redeliveries=2)
    replay = record("routed", replay_of="delivery-7", requested_by="ada")

    received, ignored = steps(Details(record=late, event={}), {}, [])

    assert received.lines[0].startswith("It is late: its ref has moved on since")
    assert received.lines[1:] == [
        "Uncertain order: it is already old.",
        "The git server sent it again 2 times.",
    ]
    assert (ignored.title, ignored.shows_routes) == ("Ignored", False)
    [received, _] = steps(Details(record=replay, event={}), {}, [])
    assert received.text == "a replay, requested by ada"


def test_timeline_has_deploys_and_actions() -> None:
    acted = ActionRecord(at=AT, by="ada", what="replay", subject="delivery-1", note="forced")
    details = Details(
        record=record("routed"), event={}, actions=[acted], deploys=[record("failed", attempts=1)]
    )

    received, routed, deploy, replayed = steps(details, {}, [])

    assert (received.title, routed.title, deploy.title) == (
        *("Received", "Routed", "Deploy to production"),
    )
    assert deploy.deploy is not None
    assert deploy.deploy.no_calls == "No attempt was made."
    assert (replayed.title, replayed.text) == ("Replayed by ada", "forced")
    assert shown(record("waiting"), ()).no_calls == "No attempt yet."
    assert judged_routes([], "acme/web") == []


@pytest.mark.parametrize("refusal", REFUSALS)
def test_no_page_speaks_of_options_of_the_command_line(refusal: str) -> None:
    text = next(words for name, words in REFUSALS.items() if name == refusal)
    result = Result(id="deploy-1", done=False, refusal=refusal, message=text)

    if is_forceable(result):
        assert "--" not in reason_of(result)
        assert warning(result)
    assert is_forceable(result) == ("--force" in text)


def test_what_is_live_is_said_before_a_replay() -> None:
    live = LiveNow(deploy="deploy-9", target="production", sha="12" * 20, at=AT)
    would = Result(id="deploy-1", done=True, live=live, replaces="ab" * 20)

    assert warning(would).startswith("deploy-9 with 121212121212 is live at production now.")
    assert warning(Result(id="deploy-1", done=True)) == ""


def test_history_rows_lead_to_what_they_are_about() -> None:
    failed = HistoryRow(
        at=AT,
        event="deploy.failed",
        deploy="deploy-3",
        delivery="delivery-1",
        repo="acme/web",
        ref="refs/heads/main",
        target="production",
        by="ada",
        reason="x" * 900,
    )
    row = shown_event(failed)
    assert (row.place, row.what, row.where) == ("/deploys/deploy-3", "acme/web main", "production")
    assert (row.tone, len(row.note)) == ("failed", 401)
    paused = shown_event(HistoryRow(at=AT, event="target.paused", target="production", by="ada"))
    assert (paused.place, paused.what, paused.note) == ("", "", "by ada")
    assert HistorySearch(repo="a/*", cursor="1").link(cursor="") == "/history?repo=a%2F%2A"


@given(st.lists(st.tuples(*(st.integers(0, 10_000) for _ in range(4))), min_size=1, max_size=60))
def test_chart_stays_within_its_frame(counts: list[tuple[int, int, int, int]]) -> None:
    minutes = [
        Minute(at=60 * number + 60, deliveries=one, succeeded=good, failed=bad, uncertain=doubt)
        for number, (one, good, bad, doubt) in enumerate(counts)
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
    fields: dict[str, Any] = {
        **dict.fromkeys(("queued", "limited", "scheduled", "running", "approval"), 0),
        **dict.fromkeys(("failed", "uncertain"), 0),
        **{key: [] for key in ("minutes", "workers", "targets", "breakers")},
        **{key: [] for key in ("troubled", "asking", "newest")},
        "at": epoch(AT),
        "waits": {},
        "oldest_at": None,
    }
    return Overview(**{**fields, **more})


def test_what_needs_attention_comes_worst_first() -> None:
    groups_ = groups(seen(approval=1, failed=2, uncertain=1))

    assert [(group.number, group.what, group.href) for group in groups_] == [
        ("1", "deploy uncertain", "/deploys?attention=yes&status=uncertain"),
        ("2", "deploys failed", "/deploys?attention=yes&status=failed"),
        ("1", "deploy waiting for approval", "/deploys?status=waiting"),
    ]
    assert groups_[0].text == CHECK_PLATFORM
    assert groups(seen()) == []
    assert not view(seen()).attention
    [many] = groups(seen(failed=10_001))
    assert (many.number, many.what) == ("more than 10,000", "deploys failed")


def test_what_needs_attention_is_shown_newest_first_and_not_all_of_it() -> None:
    many = [record("failed", id=f"deploy-{n}", created_at=f"2026-11-2{n}") for n in range(9)]
    asking = record("waiting", id="deploy-99", created_at="2026-11-30")

    shown_first, *others = view(seen(failed=9, troubled=many, asking=[asking])).attention.records

    assert shown_first == ("deploy", asking)
    assert [one.id for _, one in others] == [f"deploy-{n}" for n in (8, 7, 6, 5, 4, 3, 2)]


def target_seen(**more: Any) -> TargetSeen:
    fields: dict[str, Any] = {
        "name": "production",
        "state": "ready",
        "calling": 1,
        "waiting": 1_200,
        "paused": False,
        "breaker": "closed",
        "held": False,
        "until": "",
    }
    return TargetSeen(**{**fields, **more})


def test_targets_that_are_stopped_need_attention() -> None:
    paused = target_seen(state="paused since 12:00", paused=True)
    opened = target_seen(name="other", state="circuit breaker open", breaker="half-open")

    shown_view = view(seen(targets=[target_seen(name="third"), paused, opened]))

    assert [one.word for one in shown_view.targets] == ["ready", "paused", "open"]
    assert [one.name for one in shown_view.attention.targets] == ["production", "other"]
    assert shown_view.targets[0].waiting == "1,200"


def test_figures_of_this_moment() -> None:
    minutes = [Minute(at=0, succeeded=2), Minute(at=60, succeeded=1, failed=1)]

    rate, queued, waiting, oldest, calling = figures(
        seen(minutes=minutes, queued=1_200, oldest_at=epoch(AT) - 90, scheduled=2, limited=1)
    )

    assert (rate.value, rate.text) == ("75%", "3 of 4 in the last hour")
    assert (queued.value, queued.text) == ("1,200", "for no workers")
    assert (waiting.value, calling.value) == ("3", "0")
    assert oldest.value == "1 min 30 s"
    assert [figure.value for figure in figures(seen())] == ["none", "0", "0", "none", "0"]
    worker = WorkerSeen(name="w", jobs=0, heard_at=AT)
    assert figures(seen(workers=[worker]))[1].text == "for a worker"
    assert figures(seen(workers=None))[1].text == "Redis does not answer"
    assert [age(each) for each in (-1, 59, 3_599, 3_600, 90_000)] == [
        "0 s",
        "59 s",
        "59 min 59 s",
        "1 h 0 min",
        "1 d 1 h",
    ]


def test_search_fields_are_bounded_and_kept_in_links() -> None:
    search = read_search({"repo": " acme/* ", "author": "x" * 900, "nonsense": "1"})

    assert search == Search(repo="acme/*", author="x" * 400)
    assert search._replace(author="a&b").link("deploy", cursor="c d") == (
        "/deploys?repo=acme%2F%2A&author=a%26b&cursor=c+d"
    )
    assert Search(cursor="x").is_search is False


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        (Search(), True),
        (Search(repo="ACME/*", branch="m*", sha="ABAB", target="production", route="web"), True),
        (Search(repo="acme"), False),
        (Search(branch="topic"), False),
        (Search(sha="ac"), False),
        (Search(target="other"), False),
        (Search(route="other"), False),
        (Search(status="failed"), False),
        (Search(since="2026-11-25T12:00:02Z"), False),
        (Search(until="2026-11-25T12:00:01Z"), False),
        (Search(since="2026-11-25T12:00:01Z", until="2026-11-25T12:00:02Z"), True),
        (Search(verdict="late"), False),
    ],
)
def test_live_rows_are_those_of_the_search(search: Search, wanted: bool) -> None:
    assert is_in_list(filter_of("deploy", search), record()) is wanted


async def test_slow_page_is_told_to_look_again() -> None:
    watcher = Watcher(lambda *_: True, rows=True)
    for number in range(MOST_WAITING + 1):
        watcher.tell(b"%d" % number)

    assert await watcher.next() == b"event: missed\ndata: \n\n"


def test_the_document_has_the_calendar() -> None:
    first = date(2000, 1, 1)
    days = {(first + timedelta(number)).isoformat() for number in range(36_525)}

    for year, month, day in product(range(2000, 2100), range(14), range(33)):
        text = f"{year}-{month:02}-{day:02}"
        assert (re.search(SINCE, text) is not None) == (text in days), text
