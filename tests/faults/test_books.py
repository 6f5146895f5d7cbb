"""The books find what they are kept for."""

from __future__ import annotations

from tests.faults.books import Balance, balance


def test_books_find_what_must_not_be() -> None:
    queued = [{"event": "delivery.queued", "sha": sha} for sha in "abcdef"]
    lines = [
        *queued,
        {"event": "deploy.failed", "sha": "d", "reason": "attempt 1 was cut off before its answer"},
        {"event": "deploy.failed", "sha": "e", "reason": "the platform answered 404"},
        {"event": "deploy.uncertain", "sha": "f"},
        {"event": "delivery.duplicate", "sha": "g"},
    ]
    calls = {"a": 1, "c": 2, "d": 1, "f": 2, "g": 1, "h": 1, "not acknowledged": 5}

    found = balance("abcdefgh", calls, lines)

    assert found == Balance(
        acknowledged=8,
        deployed=3,
        uncertain=2,
        lost=["b", "e"],
        doubled=["c"],
        unexplained=["h"],
    )
    assert found.wrong() == (["b", "e"], ["c"], ["h"])
