"""relay.yaml changed under running processes: nothing is restarted and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import termios
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path

import pytest
import redis
from aiohttp import web

from config.origin import version_of
from relay.ledger.holder import is_locked_by
from tests.harness import (
    COMMAND,
    PATIENCE,
    RELAY_YAML,
    Process,
    Relay,
    Target,
    github_headers,
    github_push,
    sha_of,
    until,
)

MORE = "  - {name: more, repo: acme/more, on: push, deploy: [production]}\n"
INTERVAL = "50ms"


@pytest.fixture
def watching(relay: Relay) -> Relay:
    relay.environ = {**relay.environ, "RELAY_RELOAD_INTERVAL": INTERVAL}
    return relay


def replace(relay: Relay, text: str) -> str:
    """Put another relay.yaml in place, as an editor does; its version."""
    draft = relay.folder / "draft"
    draft.write_text(text)
    draft.rename(relay.folder / "relay.yaml")
    return version_of(text.encode())


async def test_new_route_works_under_load_without_restart(watching: Relay, target: Target) -> None:
    receiver = await watching.serve()
    # The worker never looks by itself: what the receiver accepts tells it that there is more.
    watching.environ = {**watching.environ, "RELAY_RELOAD_INTERVAL": "0"}
    worker = await watching.work()
    first = version_of(RELAY_YAML.encode())
    [started] = receiver.find("receiver.started")
    assert started["config"] == worker.find("worker.started")[0]["config"] == first
    accepted: list[str] = []
    over = asyncio.Event()

    async def load(name: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            status, answer = await watching.push(after=sha_of(f"{name}{number}"))
            assert status == 202
            accepted.append(answer["delivery"])

    senders = [asyncio.create_task(load(name)) for name in "abcd"]
    await until(lambda: len(accepted) > 20)
    second = replace(watching, RELAY_YAML + MORE)
    tries = 0
    while True:
        tries += 1
        status, answer = await watching.push(repo="acme/more", after=sha_of(f"more{tries}"))
        if status == 202:
            break
        assert (status, answer["status"]) == (200, "ignored")
    seen = len(accepted)
    await until(lambda: len(accepted) > seen + 20)
    over.set()
    await asyncio.gather(*senders)

    await worker.wait_for("deploy.succeeded", delivery=answer["delivery"], route="more")
    await watching.settle()
    statuses = watching.rows("SELECT delivery, status FROM deploy WHERE route = 'production'")
    assert {f"delivery-{row['delivery']}" for row in statuses} == {*accepted}
    # All are states of one branch, and only the newest of those that wait is called.
    assert {row["status"] for row in statuses} <= {"succeeded", "superseded"}
    for process in (receiver, worker):
        [reloaded] = process.find("config.reloaded")
        assert (reloaded["config"], reloaded["routes"]) == (second, 4)
    assert worker.find("delivery.ignored") == []


async def test_broken_file_is_refused_and_old_routes_work(watching: Relay, target: Target) -> None:
    receiver, worker = await watching.serve(), await watching.work()
    replace(watching, RELAY_YAML.replace("deploy: [api]", "deploy: [apo]"))
    for process in (receiver, worker):
        [refused] = await process.wait_for("config.refused")
        assert refused["number"] == 1
        assert "relay.yaml:22:52: routes[2].deploy[0]: no target 'apo'" in refused["problems"][0]

    assert (await watching.push(repo="acme/api"))[0] == 202
    await worker.wait_for("deploy.succeeded", target="api")

    replace(watching, RELAY_YAML + MORE)
    for process in (receiver, worker):
        await process.wait_for("config.reloaded")
        assert len(process.find("config.refused")) == 1


async def test_rotated_secrets(watching: Relay, target: Target) -> None:
    old, new, old_token, new_token = (f"{word}-1b5e9c" for word in ("old", "new", "was", "is"))
    secret, token = watching.folder / "secret", watching.folder / "token"
    secret.write_text(old)
    token.write_text(old_token)
    watching.write(
        RELAY_YAML.replace("{env: TEST_GITHUB_SECRET}", f"{{file: {secret}}}", 1).replace(
            "{env: TEST_API_TOKEN}", f"{{file: {token}}}"
        )
    )
    receiver, worker = await watching.serve(), await watching.work()

    async def push(key: str, commit: str) -> int:
        body = github_push(repo="acme/api", after=sha_of(commit))
        return (await watching.post("github", body, github_headers(body, secret=key)))[0]

    assert await push(new, "1") == 401
    assert await push(old, "1") == 202
    await worker.wait_for("deploy.succeeded", target="api")
    for file, content in ((secret, new), (token, new_token)):
        file.with_suffix(".new").write_text(content)
        file.with_suffix(".new").rename(file)
    [reloaded] = await receiver.wait_for("config.reloaded")
    assert reloaded["changed"] == [str(secret)]
    [reloaded] = await worker.wait_for("config.reloaded")
    assert reloaded["changed"] == [str(token)]

    assert await push(old, "2") == 401
    assert await push(new, "2") == 202
    await worker.wait_for("deploy.succeeded", target="api", count=2)
    assert [call[3]["Authorization"] for call in target.calls] == [old_token, new_token]
    assert not any(word in watching.output() for word in (old, new, old_token, new_token))


async def test_what_is_taken_out(watching: Relay, target: Target) -> None:
    """A call under way ends as it began; what waits says why it is not called."""
    gate = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response(status=202)

    target.answer = answer
    text = RELAY_YAML.replace("    supersede: true\n", "")
    watching.write(text)
    receiver, worker = await watching.serve(), await watching.work()
    for commit in ("1", "2"):
        await watching.push(repo="acme/api", after=sha_of(commit))
    await worker.wait_for("deploy.queued", target="api", count=2)
    await until(lambda: len(target.calls) == 1)

    start, end = text.index("  api:"), text.index("routes:")
    text = (text[:start] + text[end:]).replace(text[text.index("  - {name: api") :], "")
    replace(watching, "".join(line for line in text.splitlines(True) if "mirror" not in line))
    for process in (receiver, worker):
        await process.wait_for("config.reloaded", targets=2, routes=2, sources=2)
    gate.set()

    [failed] = await worker.wait_for("deploy.failed")
    assert failed["reason"] == "relay.yaml no longer has this target"
    [done] = await worker.wait_for("deploy.succeeded")
    assert done["sha"] != failed["sha"]
    assert len(target.calls) == 1
    assert (await watching.push(source="mirror"))[0] == 404
    status, told = await watching.push(repo="acme/api", after=sha_of("3"))
    assert (status, told["reason"]) == (200, "no route for repository acme/api")


async def test_sighup_reaches_every_process(relay: Relay, store: redis.Redis) -> None:
    relay.environ = {**relay.environ, "RELAY_RELOAD_INTERVAL": "0", "RELAY_PROCESSES": "2"}
    everything = await relay.start(*COMMAND, "up")
    await everything.wait_for("worker.started")
    await everything.wait_for("console.started")
    [*started] = await everything.wait_for("receiver.started", count=2)
    relay.url = started[0]["url"].removesuffix("/hooks/")
    replace(relay, RELAY_YAML + MORE)
    assert everything.find("config.reloaded") == []

    everything.process.send_signal(signal.SIGHUP)

    reloaded = await everything.wait_for("config.reloaded", count=4)
    processes = sorted(line["process"] for line in reloaded)
    assert processes == ["console", "receiver", "receiver", "worker"]
    status, answer = await relay.push(repo="acme/more")
    assert status == 202
    await everything.wait_for("deploy.succeeded", delivery=answer["delivery"])
    assert await everything.stop() == 0


async def test_sighup_of_several_receivers(relay: Relay) -> None:
    relay.environ = {**relay.environ, "RELAY_RELOAD_INTERVAL": "0"}
    receivers = await relay.start(*COMMAND, "serve", "--processes", "2")
    await receivers.wait_for("receiver.started", count=2)
    replace(relay, RELAY_YAML + MORE)

    receivers.process.send_signal(signal.SIGHUP)

    await receivers.wait_for("config.reloaded", count=2, routes=4)
    assert await receivers.stop() == 0


async def test_terminal_that_is_closed_ends_it(relay: Relay) -> None:
    """The kernel's SIGHUP means that the terminal has gone, not that the file has changed."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        ioctl(theirs, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "serve",
        cwd=relay.folder,
        env={**os.environ, **relay.environ},
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    assert process.stdout is not None
    assert process.stderr is not None
    receiver = Process(process)
    receiver.readers += [
        asyncio.create_task(receiver.read(process.stdout, is_audit=True)),
        asyncio.create_task(receiver.read(process.stderr, is_audit=False)),
    ]
    relay.processes.append(receiver)
    await receiver.wait_for("receiver.started")
    process.send_signal(signal.SIGHUP)
    await receiver.wait_for("config.reloaded")

    os.close(ours)

    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
    await receiver.wait_for("receiver.stopped")


def test_version_is_what_sha256sum_prints(tmp_path: Path) -> None:
    assert version_of(b"") == "e3b0c44298fc"


LOCKS = ("ledger.turn", "ledger.lock")
NEW_TARGET = RELAY_YAML.replace(
    "targets:\n", "targets:\n  fresh: {preset: http, url: {env: TEST_API_URL}}\n"
) + ("  - {name: fresh, repo: acme/more, on: push, deploy: [fresh]}\n")


async def freeze(relay: Relay, process: Process) -> None:
    """Stop a process when it has no lock of the ledger: it would be ended."""
    pid = process.process.pid
    while True:
        process.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.01)
        with ExitStack() as files:
            locks = [files.enter_context((relay.data_dir / name).open()) for name in LOCKS]
            if not any(is_locked_by(lock.fileno(), pid) for lock in locks):
                return
        process.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.01)


async def deploy_that_only_another_worker_knows(relay: Relay) -> Process:
    """A worker that is stopped and has not read relay.yaml since a target was added to it, and a
    deploy to that target, which is due. The worker that made the deploy is gone."""
    late = await relay.work()
    await freeze(relay, late)
    replace(relay, NEW_TARGET)
    await relay.serve()
    other = await relay.work()
    await (await relay.start(*COMMAND, "targets", "pause", "fresh")).process.wait()
    await relay.push(repo="acme/more")
    await other.wait_for("deploy.waiting", target="fresh")
    await other.stop()
    await (await relay.start(*COMMAND, "targets", "resume", "fresh")).process.wait()
    return late


async def test_new_target_is_called_by_a_worker_that_has_not_read_of_it(
    watching: Relay, target: Target
) -> None:
    watching.environ = {**watching.environ, "RELAY_RELOAD_INTERVAL": "0"}
    late = await deploy_that_only_another_worker_knows(watching)

    late.process.send_signal(signal.SIGCONT)

    await late.wait_for("deploy.succeeded", target="fresh")
    assert late.find("deploy.failed") == []


async def test_new_target_waits_while_relay_yaml_cannot_be_read(
    watching: Relay, target: Target
) -> None:
    late = await deploy_that_only_another_worker_knows(watching)
    replace(watching, "targets: [")

    late.process.send_signal(signal.SIGCONT)
    await until(lambda: "deploy-1 waits: relay.yaml has changed" in watching.output())
    replace(watching, NEW_TARGET)

    await late.wait_for("deploy.succeeded", target="fresh")
    assert late.find("deploy.failed") == []
