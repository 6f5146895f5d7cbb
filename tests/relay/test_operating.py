"""The commands for deliveries and deploys, on a real server with jobs in every state."""

from __future__ import annotations

import json
import zlib

import msgspec
import pytest
from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry

from relay import looking
from relay.attempts_kept import AttemptRecord, attempts_key
from relay.identity import delivery_id, is_replay, may_be_deploy
from relay.payload_reading import payload_key
from tests.harness import github_push, sha_of
from tests.relay.yard import FAILED, HELD, QUEUE, Yard


def test_lists_are_newest_first_and_say_where_each_stands(yard: Yard) -> None:
    first, second, third = yard.receive("a", "b", "c")
    failed = yard.end(yard.match("a"), JobStatus.FAILED, FAILED)
    held = yard.end(yard.match("b"), JobStatus.FAILED, HELD)
    old = yard.end(yard.match("x"), JobStatus.FINISHED, {"superseded_by": "y"})
    done = yard.end(yard.match("y"), JobStatus.FINISHED, {"status": 200})
    waits = yard.match("z")
    yard.end(first, JobStatus.FINISHED, [])
    yard.end(second, JobStatus.FINISHED, [])

    assert yard.listed("deploys", "list") == [
        (waits.id, "waiting"),
        (done.id, "succeeded"),
        (old.id, "superseded"),
        (held.id, "held"),
        (failed.id, "failed"),
    ]
    assert dict(yard.listed("deliveries", "list")) == {
        first.id: "failed",
        second.id: "held",
        third.id: "waiting",
    }
    assert yard.listed("deliveries", "list", "--status", "held") == [(second.id, "held")]
    text = yard.run("deploys", "list", "--status", "failed").stdout
    assert "HTTP 404" in text
    assert sha_of("a")[:12] in text


def test_filters(yard: Yard) -> None:
    web, api = yard.match("a"), yard.match("b", "api", repo="acme/api")
    yard.receive("c")

    assert yard.listed("deploys", "list", "--repo", "ACME/*") == [
        (api.id, "waiting"),
        (web.id, "waiting"),
    ]
    assert yard.listed("deploys", "list", "--repo", "acme/web") == [(web.id, "waiting")]
    assert yard.listed("deploys", "list", "--target", "api") == [(api.id, "waiting")]
    assert yard.listed("deploys", "list", "--since", "2999-01-01T00:00Z") == []
    assert len(yard.listed("deploys", "list", "--since", "1h")) == 2
    assert yard.listed("deliveries", "list", "--source", "gitlab") == []
    assert len(yard.listed("deliveries", "list", "--source", "github")) == 1
    assert "write 30m" in yard.run("deploys", "list", "--since", "soon", code=2).output


def test_pages_and_limit(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "PAGE", 3)
    names = [f"n{number}" for number in range(10)]
    for name in names:
        yard.receive(name)

    result = yard.run("deliveries", "list", "--limit", "7", "--json")

    ids = [json.loads(line)["id"] for line in result.stdout.splitlines()]
    assert ids == [f"github--{name}" for name in reversed(names)][:7]
    assert "there are more" in result.stderr
    assert len(yard.listed("deliveries", "list", "--limit", "10")) == 10
    monkeypatch.setattr(looking, "MOST_LOOKED_AT", 6)
    result = yard.run("deliveries", "list", "--json")
    assert len(result.stdout.splitlines()) == 6
    assert "there are more" in result.stderr


def test_show_says_all_and_no_secret(yard: Yard) -> None:
    [received] = yard.receive("a")
    deploy = yard.end(yard.match("a"), JobStatus.FAILED, FAILED)
    call = AttemptRecord(
        at="2026-11-25T12:00:00.000000Z",
        attempt=1,
        outcome="failed",
        reason="HTTP 404",
        method="POST",
        host="hooks.example",
        request_headers={"Authorization": "****"},
        status=404,
        response_body="no \x1b[31m\nsuch hook",
        ms=12.5,
    )
    yard.store.rpush(attempts_key(deploy.id), msgspec.json.encode(call))

    text = yard.run("deliveries", "show", received.id).stdout
    assert deploy.id in text
    assert "HTTP 404" in text
    assert "\ufffd[31mred" in text
    assert "\n  author         name Ada, login ada\n" in text
    told = json.loads(yard.run("deploys", "show", deploy.id, "--json").stdout)
    assert (told["status"], told["delivery"], told["target"]) == (
        "failed",
        received.id,
        "production",
    )
    assert [run["reason"] for run in told["runs"]] == ["HTTP 404"]
    assert told["calls"] == [msgspec.to_builtins(call)]
    assert (
        """
calls, the newest last
  2026-11-25T12:00:00.000000Z  attempt 1  failed  HTTP 404  after 12.5 ms
    > POST hooks.example
    > Authorization: ****
    < 404
    < no \ufffd[31m
    < such hook
"""
        in yard.run("deploys", "show", deploy.id).stdout
    )
    # One is not the other.
    assert "there is no such deploy" in yard.run("deploys", "show", received.id, code=1).output


def test_payload_is_printed_so_that_explain_takes_it(yard: Yard) -> None:
    [received] = yard.receive("a")
    payload = json.loads(github_push()) | {"note": "\x9b[31m é"}
    kept = msgspec.json.encode(payload)
    yard.store.set(payload_key(received.id), zlib.compress(kept))

    printed = yard.run("deliveries", "show", received.id, "--payload").stdout

    assert json.loads(printed) == payload
    assert "\\u009b[31m é" in printed
    told = yard.run("explain", "--source", "github", "-", typed=printed).stdout
    assert "✓ production: all conditions hold" in told


def test_without_a_payload_the_reason_is_told(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    [received] = yard.receive("a")

    result = yard.run("deliveries", "show", received.id, "--payload", code=1)
    assert (result.stdout, result.stderr) == (
        "",
        "the payload is not kept: Redis took the delivery late, and the spool keeps none\n",
    )
    monkeypatch.setenv("RELAY_PAYLOADS_KEPT", "0")
    result = yard.run("deliveries", "show", received.id, "--payload", code=1)
    assert result.stderr == "payloads are not kept: RELAY_PAYLOADS_KEPT is 0\n"
    result = yard.run("deliveries", "show", "github--b", "--payload", code=1)
    assert "there is no such delivery" in result.stderr
    # Deploys have none.
    assert "No such option" in yard.run("deploys", "show", "a--b", "--payload", code=2).stderr


def test_show_leaves_out_what_a_platform_did_not_give(yard: Yard) -> None:
    ended = {"status": 200, "attempt": 1, "deployment_id": ""}
    deploy = yard.end(yard.match("a"), JobStatus.FINISHED, ended)

    [run] = yard.run("deploys", "show", deploy.id).stdout.partition("first\n")[2].splitlines()

    assert run.endswith("  successful  status 200, attempt 1")


def test_replay_of_a_deploy_is_linked_and_becomes_the_newest(yard: Yard) -> None:
    [received] = yard.receive("a")
    old = yard.end(yard.match("a"), JobStatus.FAILED, FAILED)
    newer = yard.end(yard.match("b", after=sha_of("b")), JobStatus.FINISHED, {})
    [latest] = yard.store.keys("relay:latest:*")

    yard.run("deploys", "replay", old.id, "--dry-run")
    assert len(yard.listed("deploys", "list")) == 2
    result = yard.run("deploys", "replay", old.id)

    assert result.stdout == f"{old.id} is replayed as {old.id}-2\n"
    new = Job.fetch(f"{old.id}-2", yard.store)
    assert new.args == old.args
    assert new.get_status() == JobStatus.QUEUED
    assert yard.store.hget(new.key, "replay_of") == old.id.encode()
    assert yard.store.hget(old.key, "replayed_by") == new.id.encode()
    assert yard.store.hget(received.key, "deploys") == new.id.encode()
    assert yard.store.hget(latest, "job") == new.id.encode()
    # The branch itself has not moved: a late second webhook for the newer push is one still.
    assert yard.store.hget(latest, "after") == sha_of("b").encode()
    assert yard.store.zrange("rq:rl:target:production:allowed", 0, -1) == [new.id.encode()]
    assert newer.id != new.id


def test_replays_that_are_refused(yard: Yard) -> None:
    old = yard.end(yard.match("a"), JobStatus.FAILED, FAILED)
    done = yard.end(yard.match("b", repo="acme/other"), JobStatus.FINISHED, {})
    waits = yard.match("c", repo="acme/third")
    yard.run("deploys", "replay", old.id)
    new = Job.fetch(f"{old.id}-2", yard.store)

    def refusal(*args: str) -> str:
        return yard.run("deploys", "replay", *args, code=1).stderr

    assert f"its replay {new.id} waits or runs" in refusal(old.id)
    assert f"its replay {new.id} waits or runs" in refusal(old.id, "--force")
    assert "it has not ended: it is queued" in refusal(waits.id, "--force")
    assert "it has not failed; --force" in refusal(done.id)
    assert "there is no such deploy" in refusal("production--nothing")
    yard.end(new, JobStatus.FINISHED, {})
    assert f"it was replayed as {new.id}" in refusal(old.id)
    yard.run("deploys", "replay", old.id, "--force")
    yard.run("deploys", "replay", done.id, "--force")
    gone = yard.end(yard.match("d", "removed"), JobStatus.FAILED, FAILED)
    assert "relay.yaml no longer has its target" in refusal(gone.id)


def test_deploy_that_has_succeeded_since_is_not_replayed(yard: Yard) -> None:
    old = yard.end(yard.match("a"), JobStatus.FAILED, FAILED)
    again = yard.match("a")

    busy = yard.run("deploys", "replay", old.id, "--force", code=1)
    assert f"the same deploy waits or runs as {again.id}" in busy.stderr
    yard.end(again, JobStatus.FINISHED, {})
    ended = yard.run("deploys", "replay", old.id, code=1)
    assert f"has ended well since, as {again.id}" in ended.stderr


def test_replay_of_a_filter_asks_and_leaves_out_what_was_overtaken(yard: Yard) -> None:
    older = yard.end(yard.match("a"), JobStatus.FAILED, FAILED)
    newer = yard.end(yard.match("b"), JobStatus.FAILED, HELD)
    other = yard.end(yard.match("c", "api", repo="acme/api"), JobStatus.FAILED, FAILED)
    chosen = ("deploys", "replay", "--target", "production")

    dry = yard.run(*chosen, "--dry-run")
    assert dry.stdout.startswith(f"would replay  {newer.id}  held")
    assert f"{older.id}: the newer {newer.id} was queued for the same branch" in dry.stderr
    no = yard.run(*chosen, typed="n\n", code=1)
    assert "replay 1 deploy? [y/N]" in no.output
    assert len(yard.listed("deploys", "list")) == 3
    yard.run(*chosen, typed="y\n")

    assert yard.store.hexists(newer.key, "replayed_by")
    assert not yard.store.hexists(older.key, "replayed_by")
    assert not yard.store.hexists(other.key, "replayed_by")
    both = yard.run("deploys", "replay", "--status", "failed", "--force", "--yes").stdout
    assert both.splitlines() == [
        f"{older.id} is replayed as {older.id}-2",
        f"{other.id} is replayed as {other.id}-2",
    ]


@pytest.mark.parametrize("verb", ["replay", "cancel"])
def test_a_filter_that_finds_nothing_says_so(yard: Yard, verb: str) -> None:
    yard.end(yard.match("a"), JobStatus.FINISHED, {})

    result = yard.run("deploys", verb, "--target", "production")

    assert (result.stdout, result.stderr) == ("", f"the filter finds nothing to {verb}\n")


def test_ids_and_filters_exclude_each_other(yard: Yard) -> None:
    for args in ((), ("x", "--status", "failed")):
        result = yard.run("deploys", "replay", *args, code=2)
        assert "give either IDs or a filter" in result.output


def test_replay_of_a_delivery(yard: Yard) -> None:
    [old] = yard.receive("a")
    yard.end(yard.match("a"), JobStatus.FINISHED, {})
    yard.end(old, JobStatus.FINISHED, [])

    assert "it has not failed" in yard.run("deliveries", "replay", old.id, code=1).stderr
    told = yard.run("deliveries", "replay", old.id, "--force").stdout

    assert told == f"{old.id} is replayed as {old.id}-replay-1\n"
    new = Job.fetch(f"{old.id}-replay-1", yard.store)
    assert json.loads(new.args[0])["id"] == new.id
    assert yard.store.hget(new.key, "replay_of") == old.id.encode()
    assert yard.store.hget(old.key, "replayed_by") == new.id.encode()
    assert yard.store.lrange(f"rq:queue:{QUEUE}", 0, -1) == [new.id.encode()]
    again = yard.run("deliveries", "replay", old.id, "--force", code=1)
    assert f"its replay {new.id} waits or runs" in again.stderr
    yard.end(new, JobStatus.FAILED, "ValueError: x")
    chain = yard.run("deliveries", "replay", new.id).stdout
    assert chain == f"{new.id} is replayed as {old.id}-replay-2\n"


def test_sender_cannot_take_the_id_of_a_replay() -> None:
    assert not is_replay(delivery_id("github", "push-1-replay-1", "f"))
    assert delivery_id("github", "push-1-replay-x", "f") == "github--push-1-replay-x"


def test_cancel_takes_from_queue_slot_and_schedule(yard: Yard) -> None:
    [received] = yard.receive("a")
    queued, waits = (yard.match(name, "api", repo=f"acme/{name}") for name in "bc")
    # Only one may call at a time, so that the other waits for its slot.
    yard.store.hset("rq:rl:target:api", "concurrency", 1)
    scheduled = yard.match("d")
    yard.store.lrem(f"rq:queue:{QUEUE}", 0, scheduled.id)
    yard.store.hset(scheduled.key, "status", "scheduled")
    yard.store.zadd(ScheduledJobRegistry.key_template.format(QUEUE), {scheduled.id: 4e9})
    runs = yard.match("e", repo="acme/e")
    yard.store.hset(runs.key, "status", "started")

    told = yard.run("deploys", "cancel", queued.id, waits.id, scheduled.id)
    refused = yard.run("deploys", "cancel", runs.id, queued.id, code=1)
    yard.run("deliveries", "cancel", "--source", "github", "--yes")

    assert told.stdout.splitlines()[0] == f"{queued.id} is cancelled"
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["deploy.cancelled"] * 3
    assert lines[0]["deploy"] == queued.id
    assert lines[0]["by"]
    assert f"{runs.id}: it runs; RQ's send_stop_job_command stops it" in refused.stderr
    assert f"{queued.id}: it has ended already: it is canceled in RQ" in refused.stderr
    assert yard.store.lrange(f"rq:queue:{QUEUE}", 0, -1) == [runs.id.encode()]
    assert yard.store.zcard("rq:rl:target:api:allowed") == 0
    assert yard.store.zcard("rq:rl:target:api:rate_limited") == 0
    assert yard.store.zcard(ScheduledJobRegistry.key_template.format(QUEUE)) == 0
    assert dict(yard.listed("deliveries", "list")) == {received.id: "cancelled"}
    assert dict(yard.listed("deploys", "list", "--status", "cancelled")) == {
        queued.id: "cancelled",
        waits.id: "cancelled",
        scheduled.id: "cancelled",
    }
    # What was cancelled may be replayed, and a sender may deliver it again.
    yard.run("deploys", "replay", queued.id)
    yard.receive("a")
    assert dict(yard.listed("deliveries", "list")) == {received.id: "waiting"}
    assert not yard.store.hexists(received.key, "cancelled_by")


def test_cancelled_deploy_gives_its_slot_to_the_next(yard: Yard) -> None:
    first = yard.match("a", "api")
    second = yard.match("b", "api", repo="acme/b")
    yard.store.hset("rq:rl:target:api", "concurrency", 1)
    yard.store.lrem(f"rq:queue:{QUEUE}", 0, second.id)
    yard.store.hset(second.key, "status", "rate_limited")
    yard.store.zrem("rq:rl:target:api:allowed", second.id)
    yard.store.zadd("rq:rl:target:api:rate_limited", {second.id: 1})

    yard.run("deploys", "cancel", first.id)

    assert yard.store.lrange(f"rq:queue:{QUEUE}", 0, -1) == [second.id.encode()]
    assert second.get_status() == JobStatus.QUEUED


def test_approve_says_what_it_did_and_what_it_could_not(yard: Yard) -> None:
    asks, other = yard.match("a"), yard.match("b", "api", repo="acme/api")
    for job in (asks, other):
        yard.store.lrem(f"rq:queue:{QUEUE}", 0, job.id)
        yard.store.hset(job.key, "status", "scheduled")
        yard.store.zadd(ScheduledJobRegistry.key_template.format(QUEUE), {job.id: 4e9})
    yard.store.hset(asks.key, "waiting", "approval 2096-10-02T07:06:40Z")
    yard.store.hset(other.key, "waiting", "paused ")

    listed = yard.run("deploys", "list", "--status", "waiting").stdout
    assert "waits for approval until 2096-10-02T07:06:40Z" in listed
    assert "waits while its target is paused" in listed
    records = [
        json.loads(line)
        for line in yard.run("deploys", "list", "--status", "waiting", "--json").stdout.splitlines()
    ]
    assert {one["id"]: (one["waits_for"], one["waits_until"]) for one in records} == {
        asks.id: ("approval", "2096-10-02T07:06:40Z"),
        other.id: ("paused", ""),
    }
    dry = yard.run("deploys", "approve", asks.id, "--dry-run").stdout
    assert dry.startswith(f"would approve  {asks.id}  waiting")
    told = yard.run("deploys", "approve", asks.id, other.id, "api--none", code=1)
    again = yard.run("deploys", "approve", asks.id, code=1)

    assert told.stdout == f"{asks.id} is approved\n"
    assert f"{other.id}: it waits for no approval" in told.stderr
    assert "api--none: there is no such deploy" in told.stderr
    assert "has approved it already" in again.stderr
    due = yard.store.zscore(ScheduledJobRegistry.key_template.format(QUEUE), asks.id)
    assert due is not None
    assert due < 3e9
    assert yard.run("deploys", "approve", code=2).output
    assert "approved_by" in yard.run("deploys", "show", asks.id).stdout
    assert yard.run("deliveries", "approve", "x", code=2).output


def test_redis_that_is_away(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_REDIS_URL", "redis://:password@127.0.0.1:1")

    result = yard.run("deploys", "list", code=1)

    assert result.output == "Redis does not answer (ConnectionError)\n"


def test_a_delivery_whose_sender_names_it_like_a_deploy_is_still_one(yard: Yard) -> None:
    deploy = yard.match("a")
    [alike, other] = yard.receive(deploy.id.partition("--")[2], "b")

    assert may_be_deploy(deploy.id)
    assert may_be_deploy(f"{deploy.id}-2")
    assert may_be_deploy(alike.id)
    assert not may_be_deploy(other.id)
    assert yard.listed("deploys", "list") == [(deploy.id, "waiting")]
    assert {id_ for id_, _ in yard.listed("deliveries", "list")} == {alike.id, other.id}
