"""Pushes to Gitea, Forgejo and Gogs, whose clock is the time of the change before.

Each row: what happened, the webhooks in the order of arrival, and their verdicts with the number
of the state; a question mark means uncertain. The rows are those of docs/ref-history.md.
"""

from __future__ import annotations

import pytest

from relay.events.ref_history import Arrival
from tests.relay.events.webhooks import Situation, gitea, play, verdicts_of

SITUATIONS: list[Situation] = [
    (
        "Gitea: pushed, deleted (no commit told), another commit pushed, deleted",
        [
            gitea("", "A", 100),
            gitea(None, "", 200),
            gitea("", "B", 300),
            gitea(None, "", 400),
        ],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "Gitea: deleted and restored through the API, which does not move the clock",
        [gitea("", "A", 100), gitea(None, "", 200), gitea("", "B", 200), gitea(None, "", 200.0)],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "Gitea: Restore on the web page sends two pushes whose bodies differ",
        [
            gitea("", "A", 100),
            gitea(None, "", 200),
            gitea("", "A", 300, body="first", seen=1_000),
            gitea("", "A", 999, body="second", seen=1_001),
            gitea(None, "", 999, seen=1_900),
        ],
        "new 1, new 2, new 3, same 3, new 4",
    ),
    (
        "Gitea: a tag moved A, B, A, B; before is zeros each time",
        [gitea(None, value, at) for value, at in (("A", 1), ("B", 2), ("A", 3), ("B", 4))],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "Gogs: a tag moved A, B, A; create only, redelivery keeps the id",
        [
            gitea(None, "A", 100, keeps_id=True),
            gitea(None, "B", 200, keeps_id=True),
            gitea(None, "A", 300, keeps_id=True),
            gitea(None, "A", 300, keeps_id=True, seen=400),
        ],
        "new 1, new 2, new 3, known 3",
    ),
    (
        "Gitea: a second hook minutes later; a redelivery with a fresh id a day later",
        [
            gitea("", "A", 100),
            gitea("", "A", 100, id="hook 2", seen=400),
            gitea("", "A", 100, id="again", seen=90_000),
        ],
        "new 1, same 1, same 1",
    ),
    (
        "Gitea: a second hook of an older push after a newer push",
        [
            gitea("", "A", 100),
            gitea("A", "B", 200),
            gitea("B", "C", 202),
            gitea("A", "B", 200, id="1b", seen=206),
        ],
        "new 1, new 2, new 3, same 2",
    ),
    (
        "Forgejo restarted: A-B, C-D, B-C arrive; the clock tells",
        [gitea("A", "B", 100), gitea("C", "D", 300), gitea("B", "C", 200, seen=302)],
        "new 1?, new 2, late 3",
    ),
    (
        "Forgejo restarted: the same where the clock stood still",
        [gitea("A", "B", 100), gitea("C", "D", 100), gitea("B", "C", 100)],
        "new 1?, new 2?, late 3",
    ),
    (
        "Gitea: eight branches made and deleted at once: delete comes before its push",
        [gitea(None, "", 101), gitea("", "A", 100, seen=103)],
        "new 1, late 2?",
    ),
    (
        "Gitea: the same",
        [gitea("A", "B", 200), gitea("X", "A", 100, seen=5_000)],
        "new 1?, late 2",
    ),
    (
        "Gitea: push and create, or push and delete, of one tag",
        [
            gitea(None, "A", 100, body="push"),
            gitea(None, "A", 100, body="create"),
            gitea(None, "", 200, body="push of zeros"),
            gitea(None, "", 200, body="delete"),
        ],
        "new 1, same 1, new 2, same 2",
    ),
    (
        "Gitea: the clock stands still, two hooks: the second hook of the older tag",
        [
            gitea(None, "A", 100, body="a"),
            gitea(None, "A", 100, body="a", id="2"),
            gitea(None, "B", 200, body="b"),
            gitea(None, "C", 200, body="c"),
            gitea(None, "B", 200, body="b", id="2"),
        ],
        "new 1, same 1, new 2, new 3?, same 2",
    ),
    (
        "Gitea: a late hook with another body of a tag whose clock stood still",
        [
            gitea(None, "A", 100, body="a"),
            gitea(None, "A", 100, body="a", id="2"),
            gitea(None, "B", 100, body="b"),
            gitea(None, "A", 100, body="create", id="3", seen=110),
        ],
        "new 1, same 1, new 2?, new 3?",
    ),
    (
        "Gitea: there and back in one second, then the first bytes again with a fresh id",
        [
            gitea("", "A", 100),
            gitea("A", "B", 200),
            gitea("B", "A", 200),
            gitea("A", "B", 200, id="2"),
        ],
        "new 1, new 2, new 3, new 4?",
    ),
    (
        "Gitea: the same a minute later is a redelivery",
        [
            gitea("", "A", 100),
            gitea("A", "B", 200),
            gitea("B", "A", 200),
            gitea("A", "B", 200, id="2", seen=300),
        ],
        "new 1, new 2, new 3, same 2",
    ),
    (
        "Gitea: the same a minute later with another body is not, for the clock stood still",
        [
            gitea("", "A", 100),
            gitea("A", "B", 200),
            gitea("B", "A", 200),
            gitea("A", "B", 200, body="other", seen=300),
        ],
        "new 1, new 2, new 3, new 4?",
    ),
    (
        "Gitea: the same with two hooks: it is the second one's",
        [
            gitea("", "A", 100),
            gitea("", "A", 100, id="0b"),
            gitea("A", "B", 200),
            gitea("B", "A", 200),
            gitea("A", "B", 200, id="1b"),
        ],
        "new 1, same 1, new 2, new 3, same 2",
    ),
    (
        "Gitea: the same with three hooks: it is the third one's",
        [
            gitea("", "A", 100),
            gitea("", "A", 100, id="0b"),
            gitea("", "A", 100, id="0c"),
            gitea("A", "B", 200),
            gitea("A", "B", 200, id="1b"),
            gitea("B", "A", 200),
            gitea("A", "B", 200, id="1c"),
        ],
        "new 1, same 1, same 1, new 2, same 2, new 3, same 2",
    ),
    (
        "Gitea: restored twice, and the deletion between is lost",
        [gitea("", "A", 300), gitea("", "A", 999, seen=2_000)],
        "new 1, new 2",
    ),
    (
        "Gitea: Restore sends two pushes, and the deletion before it comes last",
        [
            gitea("", "A", 300, body="first", seen=1_000),
            gitea("", "A", 999, body="second", seen=1_001),
            gitea(None, "", 600, seen=1_010),
        ],
        "new 1, same 1, late 2",
    ),
]


@pytest.mark.parametrize(("name", "arrivals", "verdicts"), SITUATIONS)
def test_situation(name: str, arrivals: list[Arrival], verdicts: str) -> None:
    assert verdicts_of(arrivals) == verdicts, name


def test_a_deletion_that_names_no_commit_is_of_the_commit_where_the_ref_stood() -> None:
    judgements, _ = play([gitea("", "A", 100), gitea(None, "", 200)])
    assert judgements[-1].stood_at == "A"
