"""The console as a process, the commands `token`, and a Redis that is away."""

from __future__ import annotations

import asyncio
import io
import signal
import tempfile
from pathlib import Path

import aiohttp
import pytest
import redis
from click.testing import CliRunner

from config.loading import load
from config.settings import Settings, load_settings
from relay.cli import main
from relay.commands.console import powers
from relay.errors import StoreUnavailable
from relay.tokens import create
from tests.console.desk import Desk, opened
from tests.harness import COMMAND, SECRETS, Relay, start_server, until


async def test_console_serves_and_stops_cleanly(relay: Relay, store: redis.Redis) -> None:
    console = await relay.start(*COMMAND, "console")
    [started] = await console.wait_for("console.started")
    text = create(store, "ada", "viewer").text

    async with aiohttp.ClientSession(started["url"]) as http:
        headers = {"Authorization": f"Bearer {text}"}
        async with http.get("/api/v1/targets", headers=headers) as response:
            assert response.status == 200
            assert len((await response.json())["items"]) == 3
        relay.write("targets: {}\nsources: {}\n")
        console.process.send_signal(signal.SIGHUP)
        [refused] = await console.wait_for("config.refused")
        assert refused["process"] == "console"
        async with http.get("/api/v1/targets", headers=headers) as response:
            assert len((await response.json())["items"]) == 3

    assert await console.stop() == 0
    assert console.audit[-1]["event"] == "console.stopped"
    for secret in (*SECRETS, text):
        assert secret not in "".join(console.output)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_redis_is_away(settings: Settings, audited: io.BytesIO, how: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        process, socket = start_server(Path(folder))
        with redis.Redis(unix_socket_path=str(socket)) as store:
            await until(lambda: answers(store))
            away = settings.model_copy(
                update={
                    "redis_url": load_settings(redis_url=f"unix://{socket}").redis_url,
                    "store_timeout": 0.2,
                }
            )
            async with opened(away, store, audited) as desk:
                assert (await desk.ask("GET", "/api/v1/deploys", "viewer")).status == 200
                process.send_signal(how)
                await unavailable(desk)
                # What the workers lend asks in its own way.
                known = load(away.config, secrets_of=()).config.targets
                with pytest.raises(StoreUnavailable, match="Redis does not answer"):
                    await asyncio.to_thread(powers(away).targets, known)
        process.kill()
        process.wait()


def answers(store: redis.Redis) -> bool:
    try:
        return bool(store.ping())
    except redis.RedisError:
        return False


async def unavailable(desk: Desk) -> None:
    for path in ("health", "deploys", "targets"):
        answer = await desk.ask("GET", f"/api/v1/{path}", "viewer")
        assert answer.status == 503
        assert answer.body["error"]["code"] == "store_unavailable"
        assert answer.body["error"]["message"].startswith("Redis does not answer (")
    assert (await desk.ask("GET", "/healthz")).status == 200
    answer = await desk.log_in("viewer")
    assert (answer.status, "Redis does not answer" in answer.body) == (503, True)


@pytest.fixture
def cli(store: redis.Redis, server_socket: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("RELAY_REDIS_URL", f"unix://{server_socket}")
    return CliRunner()


def test_tokens_are_made_listed_and_revoked(cli: CliRunner, store: redis.Redis) -> None:
    made = cli.invoke(main, ["token", "create", "ada", "--role", "operator"])
    text = made.stdout.strip()
    id_ = text.split("_")[1]
    assert made.exit_code == 0
    assert text not in made.stderr
    assert '"event":"token.created"' in made.stderr
    assert text[17:] not in str(store.hgetall("relay:tokens"))

    again = cli.invoke(main, ["token", "create", "ada", "--role", "viewer"])
    assert (again.exit_code, "there is a token named ada" in again.stderr) == (1, True)
    wrong = cli.invoke(main, ["token", "create", "a b", "--role", "viewer"])
    assert (wrong.exit_code, "is no name" in wrong.stderr) == (1, True)

    listed = cli.invoke(main, ["token", "list"]).stdout
    assert listed.split()[:2] == [id_, "operator"]
    assert text[17:] not in listed
    gone = cli.invoke(main, ["token", "revoke", id_])
    assert (gone.exit_code, gone.stdout) == (0, f"{id_} (ada) is revoked\n")
    assert '"event":"token.revoked"' in gone.stderr
    assert cli.invoke(main, ["token", "list"]).stdout == ""
    assert cli.invoke(main, ["token", "revoke", id_]).exit_code == 1


@pytest.mark.parametrize("value", ["off", "none", ""])
def test_console_is_switched_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_CONSOLE_PORT", value)

    assert load_settings().console_port is None
