"""rq's own forking worker, with the project imported before it forks.

``python -m benchmarks.preloaded REDIS_URL QUEUE``. The plain ``rq worker`` imports it in every job.
"""

from __future__ import annotations

import sys

import redis
from rq import Queue, Worker
from rq.serializers import JSONSerializer

import workers.jobs  # noqa: F401


def main() -> None:
    """Run jobs until SIGTERM."""
    connection = redis.Redis.from_url(sys.argv[1])
    queue = Queue(sys.argv[2], connection=connection, serializer=JSONSerializer)
    Worker([queue], connection=connection, serializer=JSONSerializer).work(logging_level="WARNING")


if __name__ == "__main__":
    main()
