"""The commands for deliveries and deploys, on a ledger with rows in every state."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from relay.attempt_record import AttemptRecord
from relay.ledger.zstd import pack
from tests.harness import github_push, sha_of
from tests.relay.ledger.filled import AT
from tests.relay.yard import NO_ANSWER, REFUSED, Yard


def test_lists_are_newest_first_and_say_where_each_stands(yard: Yard) -> None:
    failed = yard.queue("a", "failed", reason=REFUSED)
    uncertain = yard.queue("b", "uncertain", reason=NO_ANSWER)
    old = yard.queue("x", "superseded", superseded_by=4)
    done = yard.queue("y", "succeeded")
    waits = yard.queue("z", "waiting")

    assert yard.listed("deploys", "list") == [
        (waits, "waiting"),
        (done, "succeeded"),
        (old, "superseded"),
        (uncertain, "uncertain"),
        (failed, "failed"),
    ]
    text = yard.run("deploys", "list", "--status", "failed").stdout
    assert REFUSED in text
    assert sha_of("a")[:12] in text
    assert f"by {done}" in yard.run("deploys", "list", "--status", "superseded").stdout
    assert "Invalid value" in yard.run("deploys", "list", "--status", "held", code=2).output


def test_deliveries_have_statuses_of_their_own(yard: Yard) -> None:
    queued = yard.receive("a", status="queued")
    ignored = yard.receive("b", status="ignored", reason="no route")
    failed = yard.queue("c", "failed")

    assert yard.listed("deliveries", "list") == [
        ("delivery-3", "routed"),
        (ignored, "ignored"),
        (queued, "queued"),
    ]
    lines = yard.run("deliveries", "list").stdout.splitlines()
    assert lines[1].endswith("delivery-3  deploy failed")
    assert lines[2].endswith("delivery-2  no route")
    assert yard.column(failed, "delivery") == 3
    assert yard.listed("deliveries", "list", "--status", "queued") == [(queued, "queued")]


def test_filters(yard: Yard) -> None:
    web = yard.queue("a", "waiting")
    api = yard.queue("b", "waiting", "api", repo="acme/api")

    assert yard.listed("deploys", "list", "--repo", "ACME/*") == [
        (api, "waiting"),
        (web, "waiting"),
    ]
    assert yard.listed("deploys", "list", "--repo", "acme/web") == [(web, "waiting")]
    assert yard.listed("deploys", "list", "--target", "api") == [(api, "waiting")]
    assert yard.listed("deploys", "list", "--since", "2999-01-01T00:00Z") == []
    assert len(yard.listed("deploys", "list", "--since", "2023-11-14")) == 2
    assert yard.listed("deliveries", "list", "--source", "gitlab") == []
    assert len(yard.listed("deliveries", "list", "--source", "github")) == 2
    assert "write 30m" in yard.run("deploys", "list", "--since", "soon", code=2).output


def test_a_limit_is_exact_and_says_that_there_are_more(yard: Yard) -> None:
    ids = [yard.receive(f"n{number}") for number in range(10)]

    result = yard.run("deliveries", "list", "--limit", "7", "--json")

    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids[::-1][:7]
    assert "there are more" in result.stderr
    all_of_them = yard.run("deliveries", "list", "--limit", "10")
    assert all_of_them.stderr == ""
    assert len(all_of_them.stdout.splitlines()) == 11


def test_show_says_all_and_no_secret(yard: Yard) -> None:
    deploy = yard.queue("a", "failed", reason=REFUSED, attempt=1)
    received = f"delivery-{yard.column(deploy, 'delivery')}"
    call = AttemptRecord(
        at="2023-11-14T22:13:20.000000Z",
        attempt=1,
        outcome="failed",
        reason=REFUSED,
        method="POST",
        host="hooks.example",
        request_headers={"Authorization": "****"},
        status=404,
        response_body="no \x1b[31m\nsuch hook",
        ms=12.5,
    )
    yard.attempt(deploy, call, http=404, ms=12.5, reason=REFUSED)
    yard.insert("action", at=AT, by="ada", what="replay", subject=deploy, note="forced")

    text = yard.run("deliveries", "show", received).stdout
    assert deploy in text
    assert REFUSED in text
    assert "\ufffd[31mred" in text
    assert "\n  author         name Ada, login ada\n" in text
    told = json.loads(yard.run("deploys", "show", deploy, "--json").stdout)
    assert (told["status"], told["delivery"], told["target"]) == ("failed", received, "production")
    assert told["calls"] == [msgspec.to_builtins(call)]
    assert [action["by"] for action in told["actions"]] == ["ada"]
    sheet = yard.run("deploys", "show", deploy).stdout
    assert "  2023-11-14T22:13:20.000000Z  replay  by ada  forced\n" in sheet
    assert (
        """
calls, the newest last
  2023-11-14T22:13:20.000000Z  attempt 1  failed  HTTP 404  after 12.5 ms
    > POST hooks.example
    > Authorization: ****
    < 404
    < no \ufffd[31m
    < such hook
"""
        in sheet
    )


def test_show_says_why_a_delivery_led_to_nothing(yard: Yard) -> None:
    ignored = yard.receive("a", status="ignored", reason="web: branch x does not match")
    yard.insert("route_reason", delivery=1, place=0, route="web", reason="branch x does not match")

    assert "\nroutes\n  web            branch x does not match" in (
        yard.run("deliveries", "show", ignored).stdout
    )


def test_show_of_what_is_not_there_says_where_to_look(yard: Yard) -> None:
    received = yard.receive("a")

    gone = yard.run("deploys", "show", "deploy-99", code=1).stderr
    assert "retention has deleted it: try deploy-relay audit query --deploy deploy-99" in gone
    # One is not the other.
    other = yard.run("deploys", "show", received, code=1).stderr
    assert "the ids of deploys look like deploy-12" in other


def test_payload_is_printed_so_that_explain_takes_it(yard: Yard) -> None:
    received = yard.receive("a")
    payload = json.loads(github_push()) | {"note": "\x9b[31m é"}
    yard.insert("payload", delivery=1, codec="zstd", body=pack(msgspec.json.encode(payload)))

    printed = yard.run("deliveries", "show", received, "--payload").stdout

    assert json.loads(printed) == payload
    assert "\\u009b[31m é" in printed
    told = yard.run("explain", "--source", "github", "-", typed=printed).stdout
    assert "✓ production: all conditions hold" in told


def test_without_a_payload_the_reason_is_told(yard: Yard) -> None:
    received, other = yard.receive("a"), yard.receive("b")
    yard.insert("payload", delivery=1, codec="none", body=b"it is too large")

    told = yard.run("deliveries", "show", received, "--payload", code=1).stderr
    assert told == "the payload is not kept: it is too large\n"
    told = yard.run("deliveries", "show", other, "--payload", code=1).stderr
    assert told == "the payload is not kept any more: retention has deleted it\n"
    told = yard.run("deliveries", "show", "delivery-9", "--payload", code=1).stderr
    assert "no delivery has the id delivery-9" in told
    # Deploys have none.
    assert "No such option" in yard.run("deploys", "show", "x", "--payload", code=2).stderr


def test_replay_of_a_deploy_is_linked_and_audited(yard: Yard) -> None:
    old = yard.queue("a", "failed", reason=REFUSED)

    dry = yard.run("deploys", "replay", old, "--dry-run")
    assert dry.stdout.startswith(f"would replay  {old}  failed")
    assert len(yard.listed("deploys", "list")) == 1
    result = yard.run("deploys", "replay", old)

    assert result.stdout == f"{old} is replayed as deploy-2\n"
    [line] = [json.loads(line) for line in result.stderr.splitlines()]
    assert (line["event"], line["deploy"]) == ("deploy.queued", "deploy-2")
    assert yard.column(old, "replayed_by") == 2
    assert yard.column("deploy-2", "replay_of") == 1
    assert yard.column("deploy-2", "requested_by")


def test_replay_says_what_would_be_undone(yard: Yard) -> None:
    old = yard.queue("a", "failed")
    live = yard.queue("b", "succeeded")
    words = (
        f"{live} with {sha_of('b')[:12]} is live there since 2023-11-14T22:13:20Z, and "
        f"{sha_of('a')[:12]} would replace it, 1 state back"
    )

    refused = yard.run("deploys", "replay", old, code=1)
    assert refused.stderr == f"{old}: {words}; --force does it nevertheless\n"
    told = json.loads(yard.run("deploys", "replay", old, "--json", code=1).stdout)
    assert told["states_back"] == 1
    assert told["live"]["deploy"] == live
    assert len(yard.listed("deploys", "list")) == 2
    forced = yard.run("deploys", "replay", old, "--force")
    assert forced.stdout == f"{old} is replayed as deploy-3\n"
    assert f"{old}: {words}\n" in forced.stderr


def test_replays_that_are_refused(yard: Yard) -> None:
    old = yard.queue("a", "failed")
    done = yard.queue("b", "succeeded", repo="acme/other")
    waits = yard.queue("c", "waiting", repo="acme/third")
    gone = yard.queue("d", "failed", "removed")
    yard.run("deploys", "replay", old)

    def refusal(*args: str) -> str:
        return yard.run("deploys", "replay", *args, code=1).stderr

    assert "its replay deploy-5 has not ended" in refusal(old)
    assert "its replay deploy-5 has not ended" in refusal(old, "--force")
    assert "it has not ended: it is waiting" in refusal(waits, "--force")
    assert "it has not failed; --force" in refusal(done)
    assert "no deploy has this id" in refusal("deploy-99")
    assert "no deploy has this id" in refusal("production--nothing")
    assert "relay.yaml no longer has its target" in refusal(gone)


def test_replay_of_a_filter_asks_and_leaves_out_what_was_overtaken(yard: Yard) -> None:
    older = yard.queue("a", "failed")
    yard.queue("b", "succeeded")
    newer = yard.queue("c", "uncertain")
    other = yard.queue("d", "failed", "api", repo="acme/api")
    chosen = ("deploys", "replay", "--target", "production")

    dry = yard.run(*chosen, "--dry-run")
    assert dry.stdout.startswith(f"would replay  {newer}  uncertain")
    assert f"{older}: deploy-2 with" in dry.stderr
    no = yard.run(*chosen, typed="n\n", code=1)
    assert "replay 1 deploy? [y/N]" in no.output
    assert len(yard.listed("deploys", "list")) == 4
    yard.run(*chosen, typed="y\n")

    assert yard.column(newer, "replayed_by") == 5
    assert yard.column(older, "replayed_by") is None
    both = yard.run("deploys", "replay", "--status", "failed", "--force", "--yes").stdout
    assert both.splitlines() == [
        f"{older} is replayed as deploy-6",
        f"{other} is replayed as deploy-7",
    ]


@pytest.mark.parametrize("verb", ["replay", "cancel"])
def test_a_filter_that_finds_nothing_says_so(yard: Yard, verb: str) -> None:
    yard.queue("a", "succeeded")

    result = yard.run("deploys", verb, "--target", "production")

    assert (result.stdout, result.stderr) == ("", f"nothing to {verb} matches the filter\n")


def test_ids_and_filters_exclude_each_other(yard: Yard) -> None:
    for args in ((), ("deploy-1", "--status", "failed")):
        result = yard.run("deploys", "replay", *args, code=2)
        assert "give either IDs or a filter" in result.output


def test_replay_of_a_delivery(yard: Yard) -> None:
    yard.queue("a", "succeeded")

    refused = yard.run("deliveries", "replay", "delivery-1", code=1)
    assert "it has not failed" in refused.stderr
    told = yard.run("deliveries", "replay", "delivery-1", "--force").stdout

    assert told == "delivery-1 is replayed as delivery-2\n"
    assert yard.column("delivery-2", "replay_of") == 1
    assert yard.listed("deliveries", "list", "--status", "queued") == [("delivery-2", "queued")]
    again = yard.run("deliveries", "replay", "delivery-1", "--force", code=1)
    assert "its replay delivery-2 has not ended" in again.stderr


def test_replay_of_deliveries_by_a_filter_takes_those_with_a_deploy_that_failed(yard: Yard) -> None:
    yard.queue("a", "succeeded", repo="acme/other")
    yard.queue("b", "failed")
    yard.deploy("api", delivery=2, status="uncertain", state=1)
    yard.receive("c", repo="acme/third", status="ignored")

    told = yard.run("deliveries", "replay", "--source", "github", "--yes").stdout
    ignored = yard.run("deliveries", "replay", "--status", "ignored", "--yes").stdout

    assert told == "delivery-2 is replayed as delivery-4\n"
    assert ignored == "delivery-3 is replayed as delivery-5\n"


def test_cancel_ends_what_waits_and_writes_its_audit(yard: Yard) -> None:
    queued = yard.receive("a", status="queued")
    waits = yard.queue("b", "waiting", "api", repo="acme/b")
    later = yard.queue("c", "waiting", repo="acme/c", waits="retry", waits_until=AT, next_at=AT)
    called = yard.queue("d", "calling", repo="acme/d")

    told = yard.run("deploys", "cancel", waits, later)
    refused = yard.run("deploys", "cancel", called, waits, code=1)
    yard.run("deliveries", "cancel", "--source", "github", "--yes")

    assert told.stdout.splitlines() == [f"{waits} is cancelled", f"{later} is cancelled"]
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["deploy.cancelled"] * 2
    assert lines[0]["deploy"] == waits
    assert lines[0]["by"]
    assert f"{called}: its call is being made" in refused.stderr
    assert f"{waits}: it has ended already: it is cancelled" in refused.stderr
    assert yard.column(queued, "status") == "ignored"
    assert yard.column(queued, "cancelled_by")
    assert yard.listed("deploys", "list", "--status", "cancelled") == [
        (later, "cancelled"),
        (waits, "cancelled"),
    ]
    # What was cancelled may be replayed.
    yard.run("deploys", "replay", waits)


def test_approve_says_what_it_did_and_what_it_could_not(yard: Yard) -> None:
    until = 4_000_000_000_000_000
    asks = yard.queue(
        "a", "waiting", waits="approval", waits_until=until, approval_until=until, next_at=until
    )
    other = yard.queue("b", "waiting", "api", repo="acme/api", waits="paused", next_at=until)

    listed = yard.run("deploys", "list", "--status", "waiting").stdout
    assert "waits for approval until 2096-10-02T07:06:40Z" in listed
    assert "waits while its target is paused" in listed
    lines = yard.run("deploys", "list", "--status", "waiting", "--json").stdout.splitlines()
    records = {one["id"]: one for one in map(json.loads, lines)}
    assert records[asks]["waits_for"] == "approval"
    assert records[asks]["waits_until"] == "2096-10-02T07:06:40.000000Z"
    assert (records[other]["waits_for"], records[other]["waits_until"]) == ("paused", "")
    dry = yard.run("deploys", "approve", asks, "--dry-run").stdout
    assert dry.startswith(f"would approve  {asks}  waiting")
    told = yard.run("deploys", "approve", asks, other, "api--none", code=1)
    again = yard.run("deploys", "approve", asks, code=1)

    assert told.stdout == f"{asks} is approved\n"
    assert f"{other}: it waits for no approval" in told.stderr
    assert "api--none: no deploy has this id" in told.stderr
    assert "approved it before" in again.stderr
    assert yard.column(asks, "next_at") < until
    assert yard.run("deploys", "approve", code=2).output
    assert "approved_by" in yard.run("deploys", "show", asks).stdout
    assert yard.run("deliveries", "approve", "x", code=2).output


def test_dismiss_needs_a_reason_and_keeps_it(yard: Yard) -> None:
    failed, done = yard.queue("a", "failed"), yard.queue("b", "succeeded", repo="acme/b")

    assert "--reason" in yard.run("deploys", "dismiss", failed, code=2).output
    told = yard.run("deploys", "dismiss", failed, "--reason", "the hook was renamed")
    refused = yard.run("deploys", "dismiss", done, "--reason", "x", code=1)

    assert told.stdout == f"{failed} is dismissed\n"
    [line] = [json.loads(line) for line in told.stderr.splitlines()]
    assert (line["event"], line["reason"]) == ("deploy.dismissed", "the hook was renamed")
    assert "it is succeeded" in refused.stderr
    assert yard.listed("deploys", "list", "--status", "dismissed") == [(failed, "dismissed")]
    assert "the hook was renamed" in yard.run("deploys", "show", failed).stdout


def test_where_no_relay_ran_there_is_no_ledger(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path / "elsewhere"))

    result = yard.run("deploys", "list", code=1)

    assert result.output.startswith(
        f"there is no ledger in {tmp_path}/elsewhere: start deploy-relay"
    )
    assert not (tmp_path / "elsewhere").exists()
