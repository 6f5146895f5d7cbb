"""A fuzzer that changes bytes of real webhooks, for every provider and for the HTTP endpoint.

    python -m tests.faults.fuzz --inputs 1000000 --requests 20000 --seed 1

Providers: any bytes are an event, something to ignore, or malformed; nothing unsigned is vouched
for. Endpoint: a real receiver answers nothing with 5xx, accepts nothing that is not signed, leaves
no traceback, and does not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from multidict import CIMultiDict

from relay.errors import Malformed, Unauthorized
from relay.events.event import MAX_EVENT, Ignored, Push
from relay.events.ref_change import ref_change, repository_key
from relay.ledger.rows import decode_event, encode_event
from relay.providers import PROVIDERS
from relay.providers.provider import Provider
from relay.samples import sample
from tests.harness import COMMAND, ledger_rows, start_server

SECRET = "fuzz-secret-0123456789"
KINDS = ("push", "tag", "pull_request")

GROWTH = 64 * 1024 * 1024
"""Bytes that a receiver may take more after the first thousand requests."""

SILENCE = 0.5
"""Seconds to wait for an answer that may never come."""

TOGETHER = 64
"""Requests at a time."""

_PIECES = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"null",
    b"[]",
    b"{}",
    b"[" * 2_000,
    b'{"a":' * 500,
    b'"' + b"x" * 5_000 + b'"',
    b'"ref":"refs/heads/main",',
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"%00",
    b"\\u0000",
)


class Mutator:
    """Changes bytes at random: flips, cuts, copies, and pieces that have hurt parsers before."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311

    def __call__(self, data: bytes) -> bytes:
        """Other bytes, of no more than twice the length and a few kilobytes."""
        changed = bytearray(data)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 8))):
            self._change(changed)
        return bytes(changed[: 2 * len(data) + 8_192])

    def _change(self, data: bytearray) -> None:
        chance = self.chance
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((1, 1, 2, 4, 16, 64, 1_000)))
        match chance.randrange(5):
            case 0 if start < len(data):
                data[start] = chance.randrange(256)
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start:end]
            case 3:
                data[start:end] = chance.choice(_PIECES)
            case _:
                data[start:start] = chance.choice(_PIECES)


def fuzz_providers(inputs: int, seed: int) -> Counter[str]:
    """How inputs ended, over all providers and kinds of events in turn. Raises AssertionError, or
    whatever a provider should not have raised."""
    mutate = Mutator(seed)
    ends: Counter[str] = Counter()
    for provider, headers, body in _endlessly(inputs):
        changed = mutate(body)
        sent = CIMultiDict(headers)
        if mutate.chance.random() < 0.1:
            name = mutate.chance.choice(list(headers))
            sent[name] = mutate(headers[name].encode()).decode(errors="surrogateescape")
        ends[_verified(provider, sent, body, changed)] += 1
        ends[_parsed(provider, sent, changed)] += 1
    return ends


def _endlessly(inputs: int) -> Iterator[tuple[Provider, dict[str, str], bytes]]:
    known = []
    for name, provider in PROVIDERS.items():
        for kind in KINDS:
            body = json.dumps(sample(name, kind, sha="2" * 40)).encode()
            made = provider([SECRET])
            known.append((made, made.sign(body, kind, "id-1", time.time()), body))
    for number in range(inputs):
        yield known[number % len(known)]


def _verified(provider: Provider, headers: CIMultiDict[str], body: bytes, changed: bytes) -> str:
    try:
        provider.verify(headers, changed, time.time())
    except Unauthorized:
        return "refused"
    # GitLab's token covers no body.
    assert changed == body or provider.name == "gitlab", "a changed body was vouched for"
    return "vouched for"


def _parsed(provider: Provider, headers: CIMultiDict[str], body: bytes) -> str:
    try:
        event = provider.parse(headers, body)
    except Malformed:
        return "malformed"
    if isinstance(event, Ignored):
        return "ignored"
    kept = encode_event(event)
    # Longer ones are refused where they are read; no mutation makes one.
    assert len(kept) < MAX_EVENT
    assert decode_event(kept) == event
    assert repository_key(event, "server")
    assert ref_change(event, keeps_id=provider.keeps_delivery_id).name
    return "push" if isinstance(event, Push) else "pull request"


@dataclass(slots=True)
class Answers:
    """What the endpoint answered, by status, and the receiver's memory in bytes."""

    statuses: Counter[int] = field(default_factory=Counter)
    grown: int = 0
    kept: int = 0
    """Deliveries in the ledger that are to be routed."""
    unsigned_accepted: int = 0
    diagnostics: str = ""


async def fuzz_endpoint(requests: int, seed: int) -> Answers:
    """Send requests to a receiver of its own."""
    mutate = Mutator(seed)
    answers = Answers()
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        folder = Path(name)
        server, address = start_server(folder)
        (folder / "relay.yaml").write_text(
            "sources: {github: {provider: github, secrets: [{env: FUZZ_SECRET}]}}\n"
            "targets: {hook: {preset: http, url: 'http://127.0.0.1:9/'}}\n"
            "routes: [{name: all, repo: '**', on: [push, tag, pull_request], deploy: hook}]\n",
            encoding="utf-8",
        )
        environ = {
            "RELAY_CONFIG": str(folder / "relay.yaml"),
            "RELAY_REDIS_URL": f"unix://{address}",
            "RELAY_DATA_DIR": str(folder / "data"),
            "RELAY_PORT": "0",
            "RELAY_BODY_TIMEOUT": "200ms",
            "FUZZ_SECRET": SECRET,
        }
        with (folder / "stderr").open("wb") as errors:
            receiver = await asyncio.create_subprocess_exec(
                *COMMAND,
                "serve",
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environ},
            )
        try:
            assert receiver.stdout is not None
            started = json.loads(await receiver.stdout.readline())
            port = int(re.findall(r":(\d+)/", started["url"])[0])
            reading = asyncio.create_task(_drain(receiver.stdout))
            before = 0
            for done in range(0, requests, TOGETHER):
                if not before and done >= min(1_000, requests // 2):
                    before = _memory(receiver.pid)
                number = min(TOGETHER, requests - done)
                await asyncio.gather(*(_one(port, mutate, answers) for _ in range(number)))
            answers.grown = _memory(receiver.pid) - before
        finally:
            receiver.terminate()
            await receiver.wait()
            server.terminate()
            server.wait()
        await reading
        [row] = ledger_rows(
            folder / "data", "SELECT count(*) AS kept FROM delivery WHERE status = 'queued'"
        )
        answers.kept = row["kept"]
        answers.diagnostics = (folder / "stderr").read_text(errors="replace")
    return answers


async def _one(port: int, mutate: Mutator, answers: Answers) -> None:
    chance = mutate.chance
    kind = chance.choice(KINDS)
    provider = PROVIDERS["github"]([SECRET])
    body = json.dumps(sample("github", kind)).encode()
    changed = mutate(body) if chance.random() < 0.7 else body
    signed = chance.random() < 0.5
    headers = provider.sign(changed if signed else body, kind, "", time.time())
    headers["X-GitHub-Delivery"] = f"{chance.getrandbits(64):x}"
    if not signed and changed == body:
        headers["X-Hub-Signature-256"] = "sha256=" + "0" * 64
    head = "POST /hooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Content-Length: {len(changed)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    raw = head.encode()
    if chance.random() < 0.5:
        raw = mutate(raw)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw + changed)
        async with asyncio.timeout(SILENCE):
            answer = await reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        # A head without its end, for example, is waited for.
        answer = b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    status = int(found[1]) if found else 0
    answers.statuses[status] += 1
    if status == 202 and not signed:
        answers.unsigned_accepted += 1


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


def _memory(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wrong(answers: Answers) -> list[str]:
    """What must not be."""
    found = [f"{number} x {status}" for status, number in answers.statuses.items() if status >= 500]
    if answers.unsigned_accepted:
        found.append(f"{answers.unsigned_accepted} unsigned requests were accepted")
    if answers.kept < answers.statuses[202]:
        found.append(f"{answers.statuses[202]} were accepted, {answers.kept} are in the ledger")
    if answers.grown > GROWTH:
        found.append(f"the receiver grew by {answers.grown:,} bytes")
    if "Traceback" in answers.diagnostics:
        found.append("a traceback: " + answers.diagnostics[:2_000])
    return found


def main() -> None:
    """Fuzz; exit code 1 where something must not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    ends = fuzz_providers(given.inputs, given.seed)
    sys.stdout.write(f"{given.inputs:,} inputs of providers: {dict(ends)}\n")
    answers = asyncio.run(fuzz_endpoint(given.requests, given.seed))
    sys.stdout.write(f"{given.requests:,} requests: {dict(sorted(answers.statuses.items()))}; ")
    sys.stdout.write(f"the ledger has {answers.kept:,}, ")
    sys.stdout.write(f"the receiver grew by {answers.grown / 2**20:.1f} MiB\n")
    if found := wrong(answers):
        sys.stdout.write("\n".join(found) + "\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
