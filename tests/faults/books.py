"""The books: what was acknowledged was deployed once, or the ledger says why not. Pure.

The ledger says what became of a push, the platform what it was called for, and the audit that the
push came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class KeptDeploy(NamedTuple):
    """A deploy as the ledger has it at the end."""

    sha: str
    status: str
    uncertain_attempts: int
    """Calls of which the ledger says that nobody knows whether they were taken."""


class KeptDelivery(NamedTuple):
    """A delivery as the ledger has it at the end."""

    sha: str
    status: str


@dataclass(slots=True)
class Balance:
    """What came of pushes, counted by their commits."""

    acknowledged: int = 0
    deployed: int = 0
    """Called once."""
    superseded: int = 0
    """Not called, because a newer commit of the branch was."""
    uncertain: int = 0
    """Called once, not at all or again; the ledger says that an attempt was cut off."""
    lost: list[str] = field(default_factory=list)
    """Not called, and the ledger does not say why."""
    doubled: list[str] = field(default_factory=list)
    """Called more than once, and the ledger does not say why."""
    unfinished: list[str] = field(default_factory=list)
    """Not at its end."""
    untold: list[str] = field(default_factory=list)
    """No line of the audit says that it came."""
    stale: list[str] = field(default_factory=list)
    """The platform was called last for an older commit of this branch."""

    def wrong(self) -> dict[str, list[str]]:
        """The first of what must not be, by its kind; empty if the books balance."""
        kinds = ("lost", "doubled", "unfinished", "untold", "stale")
        return {kind: getattr(self, kind)[:5] for kind in kinds if getattr(self, kind)}

    def __str__(self) -> str:
        return (
            f"acknowledged {self.acknowledged:,}: deployed {self.deployed:,}, superseded "
            f"{self.superseded:,}, uncertain {self.uncertain:,}; lost {len(self.lost)}, silently "
            f"doubled {len(self.doubled)}, unfinished {len(self.unfinished)}, untold "
            f"{len(self.untold)}, stale branches {len(self.stale)}"
        )


COMING = ("delivery.queued", "delivery.duplicate", "delivery.late")
"""Events of the audit that say that a push came. Where its first line was lost with the process,
the sender has no answer, and its retry is a duplicate."""


def balance(
    acknowledged: Mapping[str, Sequence[str]],
    calls: Sequence[str],
    *,
    deliveries: Iterable[KeptDelivery],
    deploys: Iterable[KeptDeploy],
    lines: Iterable[Mapping[str, Any]],
) -> Balance:
    """Balance the books. ``acknowledged`` has the commits of each branch in their order, ``calls``
    what the platform was called for, in the order of time."""
    known = {one.sha for one in deliveries if one.status == "routed"}
    said = {line["sha"] for line in lines if line["event"] in COMING}
    of_sha: defaultdict[str, list[KeptDeploy]] = defaultdict(list)
    for deploy in deploys:
        of_sha[deploy.sha].append(deploy)
    times: defaultdict[str, int] = defaultdict(int)
    for sha in calls:
        times[sha] += 1
    result = Balance()
    for branch, shas in acknowledged.items():
        for sha in shas:
            _count(result, sha, times[sha], of_sha[sha], is_known=sha in known)
            if sha not in said:
                result.untold.append(sha)
        if _is_stale(shas, calls, of_sha):
            result.stale.append(branch)
    return result


def _count(
    result: Balance, sha: str, times: int, deploys: Collection[KeptDeploy], *, is_known: bool
) -> None:
    result.acknowledged += 1
    statuses = {deploy.status for deploy in deploys}
    if statuses & {"waiting", "calling"}:
        result.unfinished.append(sha)
    elif not is_known:
        result.lost.append(sha)
    elif any(deploy.uncertain_attempts for deploy in deploys):
        result.uncertain += 1
    elif times > 1:
        result.doubled.append(sha)
    elif times == 1:
        result.deployed += 1
    elif statuses == {"superseded"}:
        result.superseded += 1
    else:
        result.lost.append(sha)


def _is_stale(
    shas: Sequence[str], calls: Sequence[str], of_sha: Mapping[str, Collection[KeptDeploy]]
) -> bool:
    """Whether the newest commit of a branch is not what its platform was told last."""
    deploys = [deploy for sha in shas for deploy in of_sha.get(sha, ())]
    if len(shas) < 2 or any(deploy.uncertain_attempts for deploy in deploys):
        # A call that nobody knows the outcome of may reach the platform at any time.
        return False
    mine = set(shas)
    last = next((sha for sha in reversed(calls) if sha in mine), None)
    return last != shas[-1]
