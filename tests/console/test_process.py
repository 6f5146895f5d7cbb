"""The console as a process, the commands `token`, and a Redis or a ledger that is away."""

from __future__ import annotations

import io
import signal
import sqlite3
import tempfile
from pathlib import Path

import aiohttp
import pytest
import redis
from click.testing import CliRunner

from config.settings import Settings, load_settings
from relay.cli import main
from relay.ledger.generation import LastIds, note_behind
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE
from tests.console.desk import Desk, opened, token
from tests.console.test_pages import get, text_of
from tests.harness import COMMAND, SECRETS, Relay, start_server, until


async def test_console_serves_and_stops_cleanly(relay: Relay) -> None:
    console = await relay.start(*COMMAND, "console")
    [started] = await console.wait_for("console.started")
    # It made the ledger, as it is the first process.
    ledger = Ledger(relay.folder / "relay-data")
    text = await token(ledger, "viewer")
    await ledger.close()

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
    """Nothing but the number of workers needs it."""
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        process, socket = start_server(Path(folder))
        with redis.Redis(unix_socket_path=str(socket)) as store:
            await until(lambda: answers(store))
            url = load_settings(redis_url=f"unix://{socket}").redis_url
            changed = {"redis_url": url, "store_timeout": 0.2}
            async with opened(settings.model_copy(update=changed), audited) as desk:
                await desk.rows.failed("a")
                process.send_signal(how)
                await desk.log_in("operator")
                assert "Redis does not answer" in text_of(await get(desk, "/"))
                for path in ("health", "deploys", "targets", "history"):
                    assert (await desk.ask("GET", f"/api/v1/{path}")).status == 200
                body = {"ids": ["deploy-1"]}
                answer = await desk.ask("POST", "/api/v1/deploys/replay", "operator", json=body)
                assert answer.body["results"][0]["done"] is True
        process.kill()
        process.wait()


def answers(store: redis.Redis) -> bool:
    try:
        return bool(store.ping())
    except redis.RedisError:
        return False


async def test_ledger_takes_nothing(settings: Settings, audited: io.BytesIO) -> None:
    """What is written is refused; what is read is shown."""
    hurried = settings.model_copy(update={"store_timeout": 0.3})
    async with opened(hurried, audited) as desk:
        await desk.rows.failed("a")
        await desk.log_in("operator")
        blocker = sqlite3.connect(desk.ledger.folder / FILE, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")

        answer = await desk.ask(
            "POST", "/api/v1/deploys/replay", "operator", json={"ids": ["deploy-1"]}
        )
        assert (answer.status, answer.body["error"]["code"]) == (503, "store_unavailable")
        assert str(desk.ledger.folder) not in answer.body["error"]["message"]
        assert (await desk.log_in("viewer")).status == 503
        assert "1 deploy failed" in text_of(await get(desk, "/"))
        assert desk.audit("console.acted") == []

        blocker.execute("ROLLBACK")
        blocker.close()
        assert (await desk.log_in("viewer")).status == 303


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    prepare(tmp_path)
    return CliRunner()


def test_tokens_are_made_listed_and_revoked(cli: CliRunner, tmp_path: Path) -> None:
    made = cli.invoke(main, ["token", "create", "ada", "--role", "operator"])
    text = made.stdout.strip()
    id_ = text.split("_")[1]
    assert made.exit_code == 0
    assert text not in made.stderr
    assert '"event":"token.created"' in made.stderr
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert id_.encode() in kept
    assert text[17:].encode() not in kept

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


async def test_a_ledger_that_went_back_is_said_and_takes_no_revoked_token(desk: Desk) -> None:
    await desk.log_in("operator")
    revoked, told = desk.tokens["viewer"].split("_")[1], LastIds(delivery=99)

    await desk.ledger.commit(lambda tx: note_behind(tx, {}, told, frozenset({revoked})))

    assert "no call is made until you run deploy-relay ledger accept" in await get(desk, "/")
    assert (await desk.ask("GET", "/api/v1/health", "viewer")).status == 401
