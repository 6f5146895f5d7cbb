"""The worker process: rq's own worker and scheduler, set up for deploy jobs."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.job import Job

from relay.audit import log
from relay.errors import StoreUnavailable
from relay.store import connect
from workers.errors import DeployFailed
from workers.runtime import project

MAINTENANCE_INTERVAL = 30
"""Seconds between looks for jobs that a dead worker left behind."""

WORKER_TTL = MAINTENANCE_INTERVAL + 15
"""Seconds. RQ waits 15 less than this for a job, and an idle worker looks around in between."""

MONITORING_INTERVAL = 5
"""Seconds between heartbeats of a running job. RQ gives a job up 60 seconds after the last one."""


class RelayWorker(Worker):
    """rq's forking worker, quiet about failures that the audit has told already."""

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Leave a traceback in the diagnostics only where something unforeseen happened."""
        if not isinstance(exc_info[1], DeployFailed):
            super().handle_exception(job, *exc_info)


def work() -> None:
    """Run jobs until SIGTERM or SIGINT; a job that runs then is finished first.

    Raises ConfigError, and StoreUnavailable where Redis does not answer at the start.
    """
    opened = project()
    connection = connect(opened.settings.redis_address())
    try:
        connection.ping()
    except RedisError as error:
        raise StoreUnavailable(f"Redis is not reachable ({type(error).__name__})") from None
    # One queue only: rq then moves a job to its intermediate queue in the same step as it takes it,
    # so that a worker that dies in between loses nothing.
    queue = Queue(opened.settings.queue, connection=connection)
    worker = RelayWorker(
        [queue],
        connection=connection,
        worker_ttl=WORKER_TTL,
        maintenance_interval=MAINTENANCE_INTERVAL,
        job_monitoring_interval=MONITORING_INTERVAL,
        log_job_description=False,
    )
    log.info("worker.started", worker=worker.name, queue=queue.name)
    worker.work(with_scheduler=True, logging_level="WARNING")
    log.info("worker.stopped", worker=worker.name)
