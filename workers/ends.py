"""What the audit says of runs that ended without a word of their own: a crash, a stop, a timeout.

The jobs (workers/jobs.py) tell of every end that they live to see; the worker tells of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rq.job import Job
from rq.timeouts import JobTimeoutException

from relay.audit import log
from relay.errors import AuditUnavailable
from relay.records import DELIVERY_JOB, DEPLOY_JOB, NOTICE_JOB

_KINDS = {DELIVERY_JOB: "delivery", DEPLOY_JOB: "deploy", NOTICE_JOB: "notice"}


def crashed(job: Job, error: BaseException, about: Mapping[str, Any] | None = None) -> None:
    """The run raised what it should not have. RQ runs the job again as long as retries are left.

    ``about`` are the audit's fields, where they are known.
    """
    kind = _kind(job)
    fields = {kind: job.id} if about is None else about
    reason = f"internal error ({type(error).__name__}), see the diagnostics"
    if isinstance(error, AuditUnavailable):
        reason = str(error)
    elif isinstance(error, JobTimeoutException):
        reason = f"it took longer than {job.timeout} s"
    if job.retries_left:
        log.warning(
            f"{kind}.retry_scheduled",
            **fields,
            reason=reason,
            seconds=job.get_retry_interval(),
            retry_after=False,
        )
    else:
        log.error(f"{kind}.failed", reason=reason, **fields)


def stopped(job: Job) -> None:
    """Somebody stopped the run by RQ's command."""
    kind = _kind(job)
    log.warning(f"{kind}.stopped", **{kind: job.id})


def put_back(job: Job) -> None:
    """The worker ended before the run did; the job is at the front of the queue again."""
    kind = _kind(job)
    log.warning(f"{kind}.put_back", **{kind: job.id})


def abandoned(job: Job) -> None:
    """Whoever ran it has not been heard of any more."""
    kind = _kind(job)
    log.warning(
        f"{kind}.abandoned",
        **{kind: job.id},
        worker=job.worker_name,
        runs_again=bool(job.retries_left),
    )


def _kind(job: Job) -> str:
    try:
        return _KINDS.get(job.func_name or "", "job")
    except Exception:
        # What cannot be read is told of as what it certainly is.
        return "job"
