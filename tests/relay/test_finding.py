"""What a search finds, on a real server: what the scripts leave out is compared with what their
jobs say."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from rq.job import JobStatus
from rq.registry import FinishedJobRegistry, ScheduledJobRegistry, StartedJobRegistry

from config.patterns import PatternSet, literal_part
from relay import finding, looking
from relay.archive import Archive
from relay.events.event import Delivery, Event, Person, PullRequest, Push
from relay.filtering import Filter
from relay.finding import Found, Newest
from relay.reading import Record, epoch, iso
from relay.records import DELIVERY_JOB, DEPLOY_JOB, JOB_PREFIX, QUEUE_PREFIX, Lifetimes, job_fields
from relay.statuses import STATUSES, Kind
from tests.relay.yard import FAILED, HELD, QUEUE, Yard
from workers.deploys import Deploy

LIFETIMES = Lifetimes(timeout=60, result=600, failure=600)

FINISHED = FinishedJobRegistry.key_template.format(QUEUE)
SCHEDULED = ScheduledJobRegistry.key_template.format(QUEUE)

PEOPLE = [
    Person(),
    Person(login="ada"),
    Person(name="Ada Lovelace", email="ADA@example.org"),
    Person(name='} "quoted" \\ \n \x1f'),
    Person(name="Straße"),
    Person(name="\u212aelvin"),
    Person(name="Zoë", login="zoe"),
    Person(name="x" * 70_000, login="long"),
]
BRANCHES = ["main", "feature/a", "feature/a/b", 'we"ird\\', "größe", "release-1.0", "Main"]
REPOS = [
    "acme/web",
    "Acme/Web",
    "acme/api",
    "group/sub/web",
    "acme/\u212aey",
    "acme/größe",
    "acme/@bb",
    "acme/site",
]
SHAS = [digit * 40 for digit in "abc"] + ["a" * 12 + "f" * 28]


def put(store: redis.Redis, number: int, event: Event, *, compressed: bool = False) -> Deploy:
    """A delivery in the queue and a deploy that waits for its time, made so many seconds after the
    first ones."""
    delivery = Delivery(f"{['github', 'gitlab'][number % 2]}--{number}", "github", 1.0, event)
    deploy = Deploy(delivery.id, "github", ["r", 'r"\\'][number % 2], "production", event)
    names = (delivery.id, f"{['production', 'preview'][number % 2]}--{number:024x}")
    for id_, function, argument, what in (
        (names[0], DELIVERY_JOB, delivery, "delivery: push"),
        (names[1], DEPLOY_JOB, deploy, "deploy: production"),
    ):
        fields = job_fields(
            function,
            msgspec.json.encode(argument).decode(),
            queue=QUEUE,
            description=f"{what} {event.repo}@{event.sha[:12]}",
            lifetimes=LIFETIMES,
        )
        store.hset(JOB_PREFIX + id_, items=fields)
        data: Any = store.hget(JOB_PREFIX + id_, "data")
        made = iso(datetime(2026, 1, 1, tzinfo=UTC).timestamp() + number)
        store.hset(JOB_PREFIX + id_, "created_at", made)
        if compressed:
            store.hset(JOB_PREFIX + id_, "data", zlib.compress(data))
    store.rpush(QUEUE_PREFIX + QUEUE, names[0])
    store.zadd(SCHEDULED, {names[1]: number * 37 % 101})
    store.hset(JOB_PREFIX + names[1], "status", "scheduled")
    return deploy


@pytest.fixture
def deploys(store: redis.Redis) -> dict[int, Deploy]:
    chosen = random.Random(1)  # noqa: S311
    put_ = {}
    for number in range(150):
        author, branch = chosen.choice(PEOPLE), chosen.choice(BRANCHES)
        repo, sha = chosen.choice(REPOS), chosen.choice(SHAS)
        event: Event = Push(repo, f"refs/heads/{branch}", "0" * 40, sha, author=author)
        if number % 3 == 0:
            event = PullRequest(repo, 1, "opened", sha, branch, repo, "main", author=author)
        elif number % 7 == 0:
            event = Push(repo, f"refs/tags/{branch}", "0" * 40, sha, files=("main", "feature/a"))
        put_[number] = put(store, number, event, compressed=number % 5 == 0)
    return put_


def searched(
    yard: Yard,
    kind: Kind,
    wanted: Filter,
    limit: int = 200,
    *,
    seconds: float | None = None,
) -> Found:
    return yard.with_redis(
        lambda connection: Archive(connection, QUEUE).find(kind, wanted, limit, seconds=seconds)
    )


def read(yard: Yard, kind: Kind, ids: Sequence[str]) -> list[Record]:
    return yard.with_redis(lambda connection: Archive(connection, QUEUE).read(kind, ids))


def said(deploy: Deploy, wanted: Filter) -> bool:
    """Whether an event is looked for, told from the event alone."""
    event = deploy.event
    branch = event.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    return (
        (not wanted.author or wanted.author.casefold() in map(str.casefold, event.author.names()))
        and (wanted.branches is None or wanted.branches.matches(branch))
        and (wanted.repos is None or wanted.repos.matches(event.repo))
        and event.sha.startswith(wanted.sha)
        and (not wanted.routes or deploy.route in wanted.routes)
    )


def filters() -> Iterator[Filter]:
    for text in ("ada", "ADA", "ada@EXAMPLE.org", "STRASSE", "kelvin", "ZOË", "zoe", "long", "x"):
        yield Filter(author=text)
    yield Filter(author='} "QUOTED" \\ \n \x1f')
    for text in (*BRANCHES, "feature/*", "feature/**", "**/b", "*a*", "[mM]ain", "re:m.*", "no"):
        yield Filter(branches=PatternSet([text], "path"))
    yield Filter(branches=PatternSet(["main", "no*"], "path"))
    yield Filter(branches=PatternSet(["!main"], "path"))
    for text in (
        *REPOS,
        "acme/\u017fite",
        "acme/*",
        "ACME/key",
        "**/web",
        "re:acme/w.b",
        "{acme,group}/web",
        "no",
    ):
        yield Filter(repos=PatternSet([text], "path", ignore_case=True))
    for text in (*SHAS, "bb", "a" * 11, "a" * 12, "a" * 13, "d"):
        yield Filter(sha=text)
    yield Filter(routes=frozenset({"r"}))
    yield Filter(routes=frozenset({'r"\\', "no"}))
    yield Filter(routes=frozenset({"no"}))
    yield Filter(routes=frozenset({"r"}), author="ada", sha="a" * 14)


def test_nothing_that_is_looked_for_is_left_out(
    yard: Yard, deploys: dict[int, Deploy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PAGE", 70)
    monkeypatch.setattr(finding, "CLOSE_PAGE", 9)
    monkeypatch.setattr(looking, "MOST_BYTES", 1_000)
    for wanted in filters():
        expected = [
            f"{['production', 'preview'][number % 2]}--{number:024x}"
            for number in reversed(deploys)
            if said(deploys[number], wanted)
        ]
        assert list(searched(yard, "deploy", wanted).ids) == expected, wanted
        if not wanted.routes:
            found = searched(yard, "delivery", wanted).ids
            numbers = [int(id_.partition("--")[2]) for id_ in found]
            assert numbers == [n for n in reversed(deploys) if said(deploys[n], wanted)], wanted


def test_names_and_times(yard: Yard, deploys: dict[int, Deploy]) -> None:
    def numbers(kind: Kind, wanted: Filter) -> list[int]:
        base = 16 if kind == "deploy" else 10
        return [int(id_.partition("--")[2], base) for id_ in searched(yard, kind, wanted).ids]

    at = epoch("2026-01-01T00:02:00.000000Z")
    assert numbers("deploy", Filter(names=frozenset({"preview"}))) == list(range(149, 0, -2))
    assert numbers("delivery", Filter(names=frozenset({"gitlab"}))) == list(range(149, 0, -2))
    assert numbers("delivery", Filter(names=frozenset({"git"}))) == []
    assert numbers("deploy", Filter(since=at)) == list(range(149, 119, -1))
    assert numbers("deploy", Filter(since=at + 1e-6)) == list(range(149, 120, -1))
    assert numbers("deploy", Filter(since=-1e15)) == list(range(149, -1, -1))
    assert numbers("deploy", Filter(since=1e15)) == []
    before = f"2026-01-01T00:00:03.000000Z preview--{3:024x}"
    assert numbers("deploy", Filter(before=before)) == [2, 1, 0]


def test_a_place_with_too_many_is_not_looked_through(
    yard: Yard, deploys: dict[int, Deploy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PAGE", 40)
    for most, complete in ((140, False), (151, True)):
        monkeypatch.setattr(looking, "MOST_LOOKED_AT", most)
        found = searched(yard, "delivery", Filter())
        newest = [int(id_.partition("--")[2]) for id_ in found.ids]
        assert newest == list(range(149, 149 - min(most, 150), -1))
        assert (found.complete, found.more) == (complete, not complete)
        assert (found.next, found.back_to) == ("", "")


@pytest.mark.parametrize("seconds", [None, 0])
def test_a_page_that_is_full_says_that_not_enough_is_kept_of_one_within_it(
    yard: Yard, deploys: dict[int, Deploy], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PAGE", 11)
    wanted = Filter(author="ada")
    first, second, third, *_ = searched(yard, "deploy", wanted).ids
    yard.store.hdel(JOB_PREFIX + second, "data")
    yard.store.hset(JOB_PREFIX + second, "stripped", "{}")
    # It is not in the first page of its place, which is looked at closely in any case.
    yard.store.zadd(SCHEDULED, {second: -1})

    page = searched(yard, "deploy", wanted, limit=2, seconds=seconds)

    assert (list(page.ids), page.more, page.complete) == ([first, third], True, False)


def test_each_status_finds_what_stands_so(yard: Yard) -> None:
    """Whether the scripts say so or a record that is read whole."""
    for number in range(4):
        # Pickled behind texts of other lengths, so that Base64 shows it in each of its ways.
        old = yard.match(f"superseded{number}", repo="acme/s")
        yard.end(old, JobStatus.FINISHED, {"x" * number: "", "superseded_by": "production--x"})
    yard.end(yard.match("done"), JobStatus.FINISHED, {"status": 200})
    yard.end(yard.match("failed"), JobStatus.FAILED, FAILED)
    yard.end(yard.match("held"), JobStatus.FAILED, HELD)
    cut = yard.end(yard.match("cut"), JobStatus.FINISHED, None)
    yard.store.hset(cut.key, "cancelled_by", "ada")
    cancelled = yard.match("cancelled")
    yard.run("deploys", "cancel", cancelled.id)
    runs = yard.match("runs")
    yard.store.lrem(QUEUE_PREFIX + QUEUE, 0, runs.id)
    yard.store.zadd(StartedJobRegistry.key_template.format(QUEUE), {f"{runs.id}:x": 4e9})
    yard.store.hset(runs.key, "status", "started")
    yard.match("waits")
    for name, waiting in (("later", "hours 2026-01-01T00:00:00Z"), ("again", "")):
        job = yard.match(name)
        yard.store.zrem("rq:rl:target:production:allowed", job.id)
        yard.store.lrem(QUEUE_PREFIX + QUEUE, 0, job.id)
        yard.store.zrem("rq:rl:target:production:rate_limited", job.id)
        yard.store.zadd(SCHEDULED, {job.id: 4e9})
        yard.store.hset(job.key, mapping={"status": "scheduled", "waiting": waiting})
    for name, deploy in zip(
        ("d1", "d2", "d3", "d4", "d5"), (old.id, cut.id, cancelled.id, "gone", ""), strict=True
    ):
        [received] = yard.receive(name)
        yard.end(received, JobStatus.FINISHED, [])
        yard.store.hset(received.key, "deploys", deploy)
    for name, why in (("d6", FAILED), ("d7", HELD)):
        [received] = yard.receive(name)
        failed = yard.end(yard.match(f"of {name}"), JobStatus.FAILED, why)
        yard.end(received, JobStatus.FINISHED, [])
        yard.store.hset(received.key, "deploys", f"{old.id} {failed.id}")
    yard.receive("d8")

    kinds: tuple[Kind, ...] = ("deploy", "delivery")
    met = set()
    for kind in kinds:
        records = read(yard, kind, searched(yard, kind, Filter()).ids)
        for status in STATUSES:
            found = searched(yard, kind, Filter(statuses=frozenset({status}))).ids
            assert list(found) == [one.id for one in records if one.status == status], status
            met |= {(kind, status)} if found else set()
    assert {status for kind, status in met if kind == "deploy"} == {
        *(
            "waiting",
            "running",
            "retrying",
            "succeeded",
            "superseded",
            "cancelled",
            "failed",
            "held",
        )
    }
    assert {status for kind, status in met if kind == "delivery"} == {
        *("waiting", "succeeded", "superseded", "cancelled", "failed", "held")
    }


@pytest.mark.parametrize(
    ("wanted", "number", "is_much"),
    [
        (Filter(), 150, False),
        (Filter(statuses=frozenset({"retrying"})), 150, True),
        (Filter(branches=PatternSet(["re:.*"], "path")), 150, True),
        (Filter(sha="a" * 13), None, False),
        (Filter(author="nobody"), 0, True),
    ],
)
def test_a_search_without_time_goes_on_where_it_ended(
    yard: Yard,
    deploys: dict[int, Deploy],
    monkeypatch: pytest.MonkeyPatch,
    wanted: Filter,
    number: int | None,
    is_much: bool,
) -> None:
    """With pages, events and memory of a handful of jobs each, its pages meet all of them once."""
    for name, value in {
        "MOST_KEPT": 60,
        "CLOSE_PAGE": 7,
        "EVENTS_PAGE": 3,
        "STATUSES_PAGE": 3,
    }.items():
        monkeypatch.setattr(finding, name, value)
    monkeypatch.setattr(looking, "MOST_BYTES", 1_000)
    monkeypatch.setattr(looking, "PAGE", 11)
    once = searched(yard, "deploy", wanted, limit=200)
    expected = [deploy for deploy in deploys.values() if said(deploy, wanted)]

    met: list[str] = []
    page, before, pages = None, "", 0
    while page is None or page.next:
        page = searched(yard, "deploy", wanted._replace(before=before), limit=20, seconds=0)
        assert not before or not page.next or page.next < before
        assert page.complete is (page.back_to == "")
        assert page.more is bool(page.next)
        met += page.ids
        before, pages = page.next, pages + 1

    assert len(met) == len(set(met)) == len(expected)
    assert number is None or len(met) == number
    assert pages > 5
    # With time it ends early for want of memory only.
    assert bool(once.back_to) is is_much


def test_what_arrives_meanwhile_is_not_met_and_hides_nothing(
    yard: Yard, deploys: dict[int, Deploy]
) -> None:
    wanted = Filter(author="ada")
    expected = list(searched(yard, "deploy", wanted).ids)
    met: list[str] = []
    before, number = "", 1_000
    while True:
        page = searched(yard, "deploy", wanted._replace(before=before), limit=2, seconds=0)
        met += page.ids
        if not page.next:
            break
        before, number = page.next, number + 1
        put(yard.store, number, Push("a/b", "refs/heads/x", "0", "1", author=Person("ada")))

    assert met == expected
    assert len(met) > 5


parts = st.lists(
    st.sampled_from(["*", "**", "**/", "?", "a", "b", "/", "ab", "é", "\\"]), max_size=7
)


@given(parts.map("".join).filter(bool), st.text(alphabet="ab/é\\", max_size=8))
def test_the_literal_part_stands_in_all_that_matches(pattern: str, value: str) -> None:
    if PatternSet([pattern], "path").matches(value):
        assert literal_part(pattern) in value


def test_literal_parts() -> None:
    assert literal_part("acme/web") == "acme/web"
    assert literal_part("feature/*-x") == "feature/"
    assert literal_part("**/b") == "b"
    assert [literal_part(text) for text in ("*", "re:main", "{a,b}/c", "[ab]c")] == [""] * 4


@given(st.lists(st.lists(st.text("abc", min_size=1, max_size=3))), st.integers(1, 5))
def test_the_newest_of_many(pages: list[list[str]], most: int) -> None:
    newest = Newest(most)
    for page in pages:
        newest.add(list(page))

    expected = sorted({place for page in pages for place in page}, reverse=True)
    assert newest.settle() == expected[:most]
    assert (newest.floor != "") is (len(expected) > most)
