"""Posts a signed webhook, as a git server would."""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

import aiohttp

from config.errors import RelayError
from relay.providers.provider import Provider

TIMEOUT = 10
"""Seconds to wait for the answer, as long as GitHub waits:
https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries"""


class NotSent(RelayError):
    """The webhook could not be sent, or the receiver did not answer."""


class Reply(NamedTuple):
    """The receiver's answer."""

    status: int
    body: str


async def send(
    url: str, provider: Provider, body: bytes, *, kind: str, delivery_id: str = ""
) -> Reply:
    """Sign ``body`` with the provider's first key and post it.

    Raises NotSent, also for a URL or a delivery id that no request can have.
    """
    headers = provider.sign(body, kind, delivery_id or str(uuid.uuid4()), time.time())
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.post(url, data=body, headers=headers) as response,
        ):
            return Reply(response.status, await response.text())
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise NotSent(f"not sent: {url!r} is no http:// or https:// URL") from None
    except ValueError:
        # aiohttp's word on a line break in a header, which would begin another one.
        raise NotSent("not sent: the delivery id or the token cannot stand in a header") from None
    except aiohttp.ClientConnectorError as error:
        # aiohttp's own text is for programmers: it names a TLS option and each address.
        if isinstance(error.os_error, ConnectionRefusedError):
            raise NotSent(
                f"no answer from {url}: connection refused: start deploy-relay up or serve, or "
                "name the receiver with --url"
            ) from None
        raise NotSent(f"no answer from {url}: {error.os_error.strerror or error}") from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotSent(f"no answer from {url}: {error or 'timed out'}") from None
