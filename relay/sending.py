"""Posts a signed webhook, as a git server would."""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

import aiohttp

from config.errors import RelayError
from relay.providers.dialect import Dialect

TIMEOUT = 10
"""Seconds to wait for the answer, as long as GitHub waits:
https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries"""


class NotSent(RelayError):
    """The receiver did not answer."""


class Reply(NamedTuple):
    """The receiver's answer."""

    status: int
    body: str


async def send(
    url: str, dialect: Dialect, body: bytes, *, kind: str, delivery_id: str = ""
) -> Reply:
    """Sign ``body`` with the dialect's first key and post it. Raises NotSent."""
    headers = dialect.sign(body, kind, delivery_id or str(uuid.uuid4()), time.time())
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.post(url, data=body, headers=headers) as response,
        ):
            return Reply(response.status, await response.text())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotSent(f"no answer from {url}: {error or 'timed out'}") from None
