"""Request bodies, read within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from aiohttp import hdrs, web

from relay.errors import (
    BodyBroken,
    BodyTooLarge,
    BodyTooSlow,
    ExpectationFailed,
    Overloaded,
    UnsupportedMediaType,
)
from relay.http.limits import ByteBudget, Share

MEDIA_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded"})


class Body:
    """The bytes of a request, and their share of the budget until the block ends."""

    __slots__ = ("_share", "content")

    def __init__(self, content: bytes, share: Share | None = None) -> None:
        self.content = content
        self._share = share

    def __enter__(self) -> bytes:
        return self.content

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._share is not None:
            self._share.release()


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Reads the bodies of one process."""

    most: int
    """Bytes of a body at most."""
    seconds: float
    """In which it must have arrived."""
    budget: ByteBudget

    async def read(self, request: web.BaseRequest, look_ahead: Callable[[], None]) -> Body:
        """Return the body of a request. ``look_ahead`` is called before the reader waits for the
        network; it raises where no body could make the request good. Raises relay.errors.Rejected.
        """
        _check_form(request)
        announced = request.content_length or 0
        if announced > self.most:
            raise BodyTooLarge(f"{announced} bytes announced")
        content = request.content
        if content.is_eof():
            body = content.read_nowait()
            if len(body) > self.most:
                raise BodyTooLarge(f"more than {self.most} bytes")
            return Body(body)
        look_ahead()
        if not self.budget.fits(announced):
            raise self._overloaded()
        if hdrs.EXPECT in request.headers:
            await _go_on(request)
        share = self.budget.share()
        try:
            return Body(await self._receive(request, share), share)
        except BaseException:
            share.release()
            raise

    async def _receive(self, request: web.BaseRequest, share: Share) -> bytes:
        content, parts, size = request.content, [], 0
        try:
            async with asyncio.timeout(self.seconds):
                while part := await content.readany():
                    parts.append(part)
                    size += len(part)
                    if size > self.most:
                        raise BodyTooLarge(f"more than {self.most} bytes")
                    if not share.grow(size):
                        raise self._overloaded()
        except TimeoutError:
            raise BodyTooSlow(f"not complete after {self.seconds:g} s") from None
        except (web.RequestPayloadError, ConnectionError):
            raise BodyBroken("the body ended early") from None
        return b"".join(parts)

    def _overloaded(self) -> Overloaded:
        budget = self.budget
        return Overloaded(
            f"the bodies that are being read take {budget.held} of {budget.limit} bytes"
        )


def _check_form(request: web.BaseRequest) -> None:
    if request.content_type not in MEDIA_TYPES:
        raise UnsupportedMediaType(f"content type {request.content_type!r}")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise UnsupportedMediaType("compressed body")


async def _go_on(request: web.BaseRequest) -> None:
    """Tell a sender that asked first to send the body (RFC 9110, section 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise ExpectationFailed("the request expects something unknown")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # This was no part of the answer, which has a length of its own.
    request.writer.output_size = 0
