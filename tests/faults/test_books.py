"""The books find what they are kept for."""

from __future__ import annotations

from tests.faults.books import Balance, KeptDelivery, KeptDeploy, balance


def test_books_find_what_must_not_be() -> None:
    deploys = [
        KeptDeploy("once", "succeeded", 0),
        KeptDeploy("twice", "succeeded", 0),
        KeptDeploy("never", "succeeded", 0),
        KeptDeploy("cut off", "uncertain", 1),
        KeptDeploy("cut off and called again", "succeeded", 1),
        KeptDeploy("replaced", "superseded", 0),
        KeptDeploy("open", "calling", 0),
        KeptDeploy("silent", "succeeded", 0),
    ]
    told = [deploy.sha for deploy in deploys if deploy.sha != "silent"]
    lines = [
        *({"event": "delivery.queued", "sha": sha} for sha in told),
        {"event": "delivery.duplicate", "sha": "unknown"},
        {"event": "deploy.attempted", "sha": "silent"},
    ]
    cut_off_and_called_again = ["cut off and called again"] * 2
    calls = ["once", "twice", "twice", *cut_off_and_called_again, "silent", "unknown", "not ours"]

    found = balance(
        {sha: [sha] for sha in (*told, "silent", "unknown")},
        calls,
        deliveries=[KeptDelivery(deploy.sha, "routed") for deploy in deploys],
        deploys=deploys,
        lines=lines,
    )

    assert found == Balance(
        acknowledged=9,
        deployed=2,
        superseded=1,
        uncertain=2,
        lost=["never", "unknown"],
        doubled=["twice"],
        unfinished=["open"],
        untold=["silent"],
    )
    assert found.wrong().keys() == {"lost", "doubled", "unfinished", "untold"}


def test_books_find_branches_that_went_back() -> None:
    branches = {"forth": ["a", "b"], "back": ["c", "d"], "unclear": ["e", "f"], "slow": ["g", "h"]}
    shas = [sha for branch in branches.values() for sha in branch]
    found = balance(
        branches,
        ["a", "b", "d", "c", "f", "e", "h"],
        deliveries=[KeptDelivery(sha, "routed") for sha in shas],
        deploys=[
            KeptDeploy(sha, "superseded" if sha == "g" else "succeeded", int(sha == "e"))
            for sha in shas
        ],
        lines=[{"event": "delivery.queued", "sha": sha} for sha in shas],
    )

    assert found.wrong() == {"stale": ["back"]}
    assert (found.superseded, found.uncertain, found.deployed) == (1, 1, 6)
