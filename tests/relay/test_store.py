"""Redis with TLS, and with a user that may do no more than the relay needs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError

from relay.embedded import find_server
from relay.store import connect, connect_async
from tests.faults.sentinels import free_port
from tests.harness import PATIENCE, Relay, Target

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tls() -> Iterator[tuple[int, Path]]:
    """The port of a server that speaks TLS only, and the certificate that vouches for it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        certificate, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-subj", "/CN=one", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        port = free_port()
        conf = Path(folder) / "server.conf"
        conf.write_text(
            f"port 0\ntls-port {port}\nbind 127.0.0.1\ndir {folder}\nsave ''\n"
            f"tls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {certificate}\n"
            "tls-auth-clients no\nuser relay on >the-password ~* &* +@all\n"
        )
        server = subprocess.Popen([find_server(), str(conf)], stdout=subprocess.DEVNULL)
        try:
            _wait_for(server, port, certificate)
            yield port, certificate
        finally:
            server.terminate()
            server.wait(PATIENCE)


def _wait_for(server: subprocess.Popen[bytes], port: int, certificate: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    options = {"host": "127.0.0.1", "port": port, "ssl_ca_certs": str(certificate)}
    with redis.Redis(ssl=True, **options) as client:  # type: ignore[arg-type]
        while True:
            if server.poll() is not None:
                pytest.skip("this server cannot do TLS")
            try:
                client.ping()
            except RedisError:
                assert time.monotonic() < deadline, "the server is silent"
                time.sleep(0.02)
            else:
                return


async def test_tls(tls: tuple[int, Path]) -> None:
    port, certificate = tls
    url = f"rediss://relay:the-password@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    async with connect_async(url, timeout=2) as client:
        assert await client.set("key", "value")
    with connect(url) as blocking:
        assert blocking.get("key") == b"value"
        assert blocking.execute_command("ACL", "WHOAMI") == b"relay"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_certificate_that_does_not_fit(name: str, tls: tuple[int, Path]) -> None:
    port, certificate = tls
    # The address has nobody who vouches for it, the name is none that the certificate has.
    options = f"?ssl_ca_certs={certificate}" if name == "localhost" else ""
    async with connect_async(f"rediss://{name}:{port}/0{options}", timeout=2) as client:
        with pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.ping()


@pytest.fixture
def user(store: redis.Redis) -> Iterator[str]:
    """Name and password of a user with the rights that docs/redis.md gives."""
    text = (ROOT / "docs" / "redis.md").read_text("utf-8")
    [rights] = [line for line in text.splitlines() if line.startswith("user relay ")]
    words = rights.split()[1:]
    _acl(store, "SETUSER", *words)
    _acl(store, "LOG", "RESET")
    yield "relay:PASSWORD"
    _acl(store, "DELUSER", "relay")


async def test_documented_rights_suffice(
    user: str, relay: Relay, target: Target, store: redis.Redis, server_socket: Path
) -> None:
    async def unwell(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    target.answers.append(unwell)
    url = f"unix://{user}@{server_socket}"
    relay.environ = {**relay.environ, "RELAY_REDIS_URL": url}
    receiver, worker = await relay.serve(), await relay.work()
    assert (await relay.push(delivery="1"))[0] == 202
    await worker.wait_for("deploy.retry_scheduled")
    await worker.wait_for("deploy.succeeded")
    assert await worker.stop() == await receiver.stop() == 0

    refused = _acl(store, "LOG")
    # RQ asks for its own address and goes without.
    assert {entry[b"object"] for entry in map(_entry, refused)} <= {b"client|list"}
    with redis.Redis.from_url(url) as client:
        for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("GET", "other")):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


def _acl(store: redis.Redis, *words: str) -> Any:
    return store.execute_command("ACL", *words)  # type: ignore[no-untyped-call]


def _entry(entry: object) -> dict[bytes, object]:
    if isinstance(entry, dict):
        return {(k if isinstance(k, bytes) else k.encode()): _bytes(v) for k, v in entry.items()}
    assert isinstance(entry, list)
    return dict(zip(entry[::2], entry[1::2], strict=True))


def _bytes(value: object) -> object:
    return value.encode() if isinstance(value, str) else value
