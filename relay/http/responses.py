"""Small JSON answers, written as one piece of bytes.

aiohttp assembles the headers of an answer one by one in a dictionary and serialises them again for
each request. For answers that differ in a few bytes only, that is a tenth of what receiving a small
webhook costs; docs/performance.md has the figures.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

_HEAD = (
    b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: %b\r\n\r\n%b"
)
_REASONS = {200: b"OK", 202: b"Accepted"}


def final_answer(code: int, *, retry_after: int = 0, **fields: object) -> bytes:
    """A whole answer, after which the connection is closed; for whoever has not asked anything."""
    content = orjson.dumps(fields)
    lines = [
        f"HTTP/1.1 {code} {HTTPStatus(code).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        f"Date: {_date(int(time.time())).decode()}",
        "Connection: close",
    ]
    if retry_after:
        lines.append(f"Retry-After: {retry_after}")
    return "\r\n".join([*lines, "", ""]).encode() + content


class WebhookAnswer(web.Response):
    """What became of a webhook, for a connection that stays open.

    Whatever is out of the ordinary, such as HTTP/1.0 or a connection that shall be closed, is left
    to aiohttp.
    """

    def __init__(self, code: int, /, **fields: str) -> None:
        """``code`` is the HTTP status, 200 or 202; the fields are the body's."""
        self._content = orjson.dumps(fields)
        super().__init__(status=code, body=self._content, content_type="application/json")
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool | None:
        """Whether aiohttp keeps the connection open afterwards."""
        return True if self._request is not None else super().keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """See aiohttp's Response."""
        if request.version != HttpVersion11 or not request.keep_alive:
            return await super().prepare(request)
        self._request = request
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """See aiohttp's Response. Raises ConnectionResetError if the sender has gone."""
        request = self._request
        if request is None:
            await super().write_eof(data)
            return
        if request.transport is None:
            raise ConnectionResetError("the sender has gone")
        content, date = self._content, _date(int(time.time()))
        request.transport.write(
            _HEAD % (self.status, _REASONS[self.status], len(content), date, content)
        )
        # A sender that reads no answers must not make them pile up here.
        await request.writer.drain()


_latest: tuple[int, bytes] = (0, b"")


def _date(second: int) -> bytes:
    """The Date header (RFC 9110, section 6.6.1); made once a second."""
    global _latest
    if _latest[0] != second:
        _latest = (second, formatdate(second, usegmt=True).encode())
    return _latest[1]
