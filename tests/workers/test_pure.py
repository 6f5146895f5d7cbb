"""Pauses, Retry-After and verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.policies import RetryPolicy, Success
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
