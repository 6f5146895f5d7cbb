"""Listens to RQ's commands: stop a job, shut down."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from rq.command import parse_payload

from relay.events.ids import row_number
from workers.flights import Flights

QUIET = 30
"""Seconds without a message after which the connection is looked at."""

PAUSE = 2
"""Seconds before another attempt to listen, after Redis was away."""

_logger = logging.getLogger("workers")


class Commands:
    """Carries out the commands of `rq` for one worker."""

    def __init__(
        self,
        redis: Redis,
        channel: str,
        *,
        flights: Flights,
        shut_down: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._channel = channel
        self._flights = flights
        self._shut_down = shut_down
        self.listening = asyncio.Event()
        """Set once Redis has confirmed that it passes commands on; before, they would be lost."""

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    has_pinged = False
                    while True:
                        message = await channel.get_message(timeout=QUIET)
                        if message is None and has_pinged:
                            raise RedisConnectionError("no answer to a ping")
                        has_pinged = message is None
                        if message is None:
                            await channel.ping()
                        elif message["type"] == "subscribe":
                            self.listening.set()
                        elif message["type"] == "message":
                            self._obey(message)
            except (RedisError, OSError) as error:
                _logger.warning("not listening to commands (%s)", type(error).__name__)
                await asyncio.sleep(PAUSE)

    def _obey(self, message: dict[str, Any]) -> None:
        try:
            payload = parse_payload(message)
            command = payload["command"]
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
            _logger.warning("a command that cannot be read is ignored")
            return
        if command == "shutdown":
            self._shut_down()
        elif command == "stop-job":
            self._stop(str(payload.get("job_id")))
        else:
            _logger.warning(
                "command %r is ignored: jobs here have no process of their own", command
            )

    def _stop(self, job: str) -> None:
        deploy = row_number("deploy", job)
        if deploy is None or not self._flights.cut_off("stopped", deploy):
            _logger.warning("a job that is to be stopped makes no call here")
