"""Pauses, Retry-After and verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.policies import RetryPolicy, Success
from relay.events.event import PullRequest, Push
from relay.identity import changed_at, delivery_id, deploy_identity, transition
from workers.platform.backoff import pause, retry_after
from workers.platform.response import Answer, judge

NOW = 1_700_000_000.0
FLIGHTCONTROL = Success(status=(200,), body={"success": (True, "true")})


@given(
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1000),
    st.floats(0, 10_000),
)
def test_pause_stays_within_its_bounds(
    attempt: int, chance: float, base: float, cap: float
) -> None:
    seconds = pause(RetryPolicy(base=base, cap=cap), attempt, chance)

    assert 0 <= seconds <= min(cap, base * 2.0 ** min(attempt - 1, 64))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("120", 120),
        (" 7 ", 7),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_understood_or_not(value: str) -> None:
    seconds = retry_after(value, NOW)

    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        (200, b'{"success": true, "deploymentId": "d"}', "succeeded", ""),
        (200, b'{"success": "true", "deploymentId": "d"}', "succeeded", ""),
        (200, b'{"success": false}', "failed", "HTTP 200, but success is false"),
        (200, b'{"success": 1}', "failed", "HTTP 200, but success is something else"),
        (200, b"{}", "failed", "HTTP 200, but success is missing"),
        (200, b"OK", "failed", "HTTP 200, but the answer is not JSON"),
        (200, b"[" * 65_536, "failed", "HTTP 200, but the answer is not JSON"),
        (201, b"{}", "failed", "HTTP 201"),
        (302, b"", "failed", "HTTP 302, a redirect that is not followed"),
        (304, b"", "failed", "HTTP 304"),
        (308, b"", "failed", "HTTP 308, a redirect that is not followed"),
        (404, b"", "failed", "HTTP 404"),
        (408, b"", "retry", "HTTP 408"),
        (425, b"", "retry", "HTTP 425"),
        (429, b"", "retry", "HTTP 429"),
        (500, b"", "retry", "HTTP 500"),
        (599, b"", "retry", "HTTP 599"),
    ],
)
def test_verdict(status: int, body: bytes, outcome: str, reason: str) -> None:
    verdict = judge(Answer(status, {}, body), FLIGHTCONTROL, "deploymentId")

    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.deployment_id == ("d" if outcome == "succeeded" else "")


def test_deployment_id_in_a_list() -> None:
    answer = Answer(200, {}, b'{"deployments": [{"deployment_uuid": "u"}]}')

    assert judge(answer, Success(), "deployments.0.deployment_uuid").deployment_id == "u"


@pytest.mark.parametrize("index", ["²", "1", "0000001", "1" * 5_000, "-1", ""])
def test_an_index_that_a_list_does_not_have(index: str) -> None:
    answer = Answer(200, {}, b'["d"]')

    assert judge(answer, Success(), index).deployment_id == ""
    assert judge(answer, Success(), "0").deployment_id == "d"


@given(st.binary(), st.integers(100, 599))
def test_any_answer_is_judged(body: bytes, status: int) -> None:
    verdict = judge(Answer(status, {}, body), FLIGHTCONTROL, "deploymentId")

    assert verdict.outcome in ("succeeded", "retry", "failed")


@given(st.text(), st.text())
def test_delivery_ids_suit_rq_and_tell_apart(one: str, other: str) -> None:
    first, second = (delivery_id("git-hub", sent, "digest") for sent in (one, other))

    assert all(char.isalnum() or char in "-_" for char in first)
    assert first.isascii()
    assert (first == second) == (one == other)


def test_no_sender_chooses_an_id_that_is_made_here() -> None:
    made = [delivery_id("s", sent, "digest") for sent in ("", "no id for rq")]

    assert len({*made, *(delivery_id("s", own.removeprefix("s--"), "digest") for own in made)}) == 4
    assert delivery_id("s", "body", "digest") == "s--body"


def test_ids_that_are_no_text_tell_apart() -> None:
    # The bytes of an accented letter, as a header that is not UTF-8 arrives, and the letter.
    sent = ["\udcc3\udca9", "é", "\ud800"]

    assert len({delivery_id("s", one, "digest") for one in sent}) == len(sent)


def test_deploy_identity() -> None:
    def push(**keys: str) -> Push:
        known: dict[str, Any] = {
            "repo": "a/b",
            "ref": "refs/heads/main",
            "before": "1",
            "after": "2",
        }
        return Push(**(known | keys))

    def pull(action: str) -> PullRequest:
        return PullRequest("a/b", 1, action, "2", "topic", "a/b", "main")  # type: ignore[arg-type]

    same = deploy_identity("t", push())
    assert deploy_identity("t", push(before="0", repo="A/B")) == same
    assert transition(push(before="0")) != transition(push())
    different = [push(after="3"), push(ref="refs/heads/next"), push(ref="refs/tags/main")]
    assert same not in {deploy_identity("t", event) for event in different}
    assert deploy_identity("u", push()) != same
    assert deploy_identity("t", pull("opened")) == deploy_identity("t", pull("synchronize"))
    phases = {deploy_identity("t", pull(a)) for a in ("opened", "closed", "reopened")}
    assert len(phases) == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T12:00:00Z", 1_769_860_800),
        ("2026-01-31T13:00:00.500+01:00", 1_769_860_800.5),
        ("2026-01-31 12:00:00 UTC", 1_769_860_800),
        ("2026-01-31 11:00:00 -0100", 1_769_860_800),
        ("2026-01-31T12:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_when_a_pull_request_was_changed(text: str, seconds: float | None) -> None:
    event = PullRequest("r", 1, "opened", "a", "h", "r", "main", updated_at=text)

    assert changed_at(event) == seconds


@given(st.text(max_size=64))
def test_any_text_may_stand_where_a_time_is_expected(text: str) -> None:
    changed_at(PullRequest("r", 1, "opened", "a", "h", "r", "main", updated_at=text))
