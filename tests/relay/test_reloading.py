"""relay.yaml that changes under a running process: real files, changed in every way there is."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.loading import Loaded, load
from config.origin import Stamp, stamp, version_of
from config.settings import Settings
from relay import audit
from relay.reloading import MOST_PROBLEMS, Reloading
from tests.harness import until

OLD, NEW = "old-secret-5fd1c6", "new-secret-0e8a77"

YAML = """\
sources: {github: {provider: github, secrets: [{file: FOLDER/secret}]}}
targets: {t: {preset: http, url: "https://example.com/"}}
routes:
"""


@dataclass(slots=True)
class Made:
    """What a process would make of relay.yaml."""

    routes: list[str]
    secret: str


@dataclass(slots=True)
class Project:
    """relay.yaml and a secret in a folder."""

    folder: Path
    stream: io.BytesIO
    reloading: Reloading[Made] = None  # type: ignore[assignment]

    @property
    def file(self) -> Path:
        return self.folder / "relay.yaml"

    def text(self, *routes: str) -> str:
        lines = [f"  - {{name: {name}, repo: a/b, on: push, deploy: t}}\n" for name in routes]
        return YAML.replace("FOLDER", str(self.folder)) + "".join(lines)

    def write(self, *routes: str) -> None:
        self.file.write_text(self.text(*routes))

    def lines(self, event: str) -> list[dict[str, Any]]:
        # Otherwise the lines of this turn of the event loop are written when it ends.
        audit.flush()
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def open(self, **settings: Any) -> Reloading[Made]:
        chosen = Settings(config=self.file, **{"reload_interval": 0.02, **settings})
        loaded = load(self.file, secrets_of=["sources"])
        self.reloading = Reloading(
            chosen,
            made(loaded),
            loaded.origin,
            process="receiver",
            secrets_of=["sources"],
            make=made,
        )
        return self.reloading

    async def has(self, *routes: str) -> None:
        await until(lambda: self.reloading.current.routes == list(routes))

    async def said(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        await until(lambda: len(self.lines(event)) >= count)
        return self.lines(event)


def made(loaded: Loaded) -> Made:
    [ref] = loaded.config.sources["github"].secrets
    return Made([route.name for route in loaded.config.routes], ref.reveal())


@pytest.fixture
def project(tmp_path: Path, audited: io.BytesIO) -> Project:
    (tmp_path / "secret").write_text(OLD)
    project = Project(tmp_path, audited)
    project.write("one")
    return project


@pytest.fixture
async def watched(project: Project) -> AsyncIterator[Project]:
    task = asyncio.create_task(project.open().run())
    yield project
    assert not task.done()
    task.cancel()


async def test_nothing_is_read_while_nothing_changes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def look(path: Path) -> Stamp:
        looks.append(path)
        return stamp(path)

    monkeypatch.setattr("relay.reloading.stamp", look)
    task = asyncio.create_task(project.open().run())
    await until(lambda: len(looks) > 6)
    task.cancel()

    assert set(looks) == {project.file, project.folder / "secret"}
    assert project.stream.getvalue() == b""


async def test_written_over(watched: Project) -> None:
    watched.write("one", "two")
    await watched.has("one", "two")

    [line] = await watched.said("config.reloaded")
    assert {key: line[key] for key in ("process", "sources", "targets", "routes")} == {
        "process": "receiver",
        "sources": 1,
        "targets": 1,
        "routes": 2,
    }
    assert line["config"] == version_of(watched.file.read_bytes())
    assert line["changed"] == [str(watched.file)]
    assert line["level"] == "info"


async def test_same_size_and_time(watched: Project) -> None:
    before = watched.file.stat()
    watched.write("two")
    os.utime(watched.file, ns=(before.st_atime_ns, before.st_mtime_ns))

    await watched.has("two")


async def test_replaced_as_editors_do(watched: Project) -> None:
    draft = watched.folder / ".relay.yaml.swp"
    draft.write_text(watched.text("one", "two"))
    draft.rename(watched.file)

    await watched.has("one", "two")


async def test_link_that_is_turned_as_kubernetes_does(project: Project) -> None:
    for number, routes in ((1, ["one"]), (2, ["one", "two"])):
        data = project.folder / f"..data_{number}"
        data.mkdir()
        (data / "relay.yaml").write_text(project.text(*routes))
    project.file.unlink()
    (project.folder / "..data").symlink_to("..data_1")
    project.file.symlink_to("..data/relay.yaml")
    task = asyncio.create_task(project.open().run())

    (project.folder / "..data_tmp").symlink_to("..data_2")
    (project.folder / "..data_tmp").rename(project.folder / "..data")

    await project.has("one", "two")
    task.cancel()


async def test_secret_that_is_rotated(watched: Project) -> None:
    (watched.folder / "secret").write_text(NEW)
    await until(lambda: watched.reloading.current.secret == NEW)

    [line] = await watched.said("config.reloaded")
    assert line["changed"] == [str(watched.folder / "secret")]
    assert line["config"] == version_of(watched.file.read_bytes())


async def test_change_between_start_and_first_look(project: Project) -> None:
    reloading = project.open()
    project.write("two")

    task = asyncio.create_task(reloading.run())

    await project.has("two")
    task.cancel()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.replace("deploy: t", "deploy: u"), ":4:46: routes[0].deploy[0]: no tar"),
        (lambda text: text[:-8], ":5:1: not valid YAML: "),
        (lambda text: text.replace("/secret", "/nowhere"), ": file FOLDER/nowhere cannot be read"),
        (lambda text: text.replace("example.com/", "x/{{ nix }}"), ":2:34: targets.t.url: "),
        (lambda _: "", ": is empty"),
    ],
)
async def test_broken_then_mended(watched: Project, spoil: Callable[[str], str], said: str) -> None:
    began_with = watched.reloading.current
    watched.file.write_text(spoil(watched.text("one")))

    [line] = await watched.said("config.refused")
    assert (line["process"], line["level"], line["number"]) == ("receiver", "error", 1)
    assert line["config"] == version_of(watched.text("one").encode())
    assert f"{watched.file}" in line["problems"][0]
    assert said.replace("FOLDER", str(watched.folder)) in line["problems"][0]
    assert watched.reloading.current is began_with

    watched.write("two")
    await watched.has("two")
    assert len(watched.lines("config.refused")) == 1


async def test_secret_that_comes_later_mends_the_file(watched: Project) -> None:
    watched.file.write_text(watched.text("two").replace("/secret", "/later"))
    await watched.said("config.refused")

    (watched.folder / "later").write_text(NEW)

    await watched.has("two")
    assert watched.reloading.current.secret == NEW


async def test_refusal_is_bounded(watched: Project) -> None:
    watched.file.write_text(watched.text("one", *["x" * 500] * 40).replace("on: push", "on: it"))

    [line] = await watched.said("config.refused")

    assert line["number"] > 40
    assert len(line["problems"]) == MOST_PROBLEMS
    assert all(len(problem) <= 300 for problem in line["problems"])
    assert len(watched.stream.getvalue().splitlines()[-1]) < 4096


async def test_missing_file_is_refused_once(watched: Project) -> None:
    watched.file.unlink()
    [line] = await watched.said("config.refused")
    assert line["problems"] == [
        f"{watched.file}: cannot be read: No such file or directory: create it, or name another "
        "one in RELAY_CONFIG"
    ]

    watched.write("two")
    await watched.has("two")
    assert len(watched.lines("config.refused")) == 1


async def test_file_that_keeps_changing_is_not_read(watched: Project) -> None:
    number = 0
    while not watched.lines("config.refused"):
        # Each state is valid: what is in it must not count before the writing has come to an end.
        watched.write(f"half-{(number := number + 1)}")
        await asyncio.sleep(0.001)

    [line] = watched.lines("config.refused")
    assert "it keeps changing" in line["problems"][0]
    assert watched.reloading.current.routes == ["one"]
    watched.write("whole")
    await watched.has("whole")
    assert len(watched.lines("config.reloaded")) == 1


async def test_change_during_reading_is_refused(project: Project) -> None:
    reloading = project.open(reload_interval=0)
    writes = iter([["three"], []])

    def meanwhile(loaded: Loaded) -> Made:
        if routes := next(writes):
            project.write(*routes)
        return made(loaded)

    reloading._make = meanwhile
    task = asyncio.create_task(reloading.run())
    project.write("two")
    reloading.hurry()
    [line] = await project.said("config.refused")
    assert "changed while it was read" in line["problems"][0]
    assert reloading.current.routes == ["one"]

    reloading.hurry()
    await project.has("three")
    task.cancel()


async def test_unforeseen_error_is_refused_and_watching_goes_on(watched: Project) -> None:
    def fails(_: Loaded) -> Made:
        raise RuntimeError(OLD)

    watched.reloading._make = fails
    watched.write("two")
    [line] = await watched.said("config.refused")
    assert "not foreseen" in line["problems"][0]
    assert OLD not in str(line)

    watched.reloading._make = made
    watched.write("three")
    await watched.has("three")


async def test_interval_of_zero_reads_only_when_asked(project: Project) -> None:
    reloading = project.open(reload_interval=0)
    task = asyncio.create_task(reloading.run())
    project.write("two")
    done, _ = await asyncio.wait([task], timeout=0.1)
    assert not done
    assert reloading.current.routes == ["one"]

    reloading.hurry()

    await project.has("two")
    reloading.hurry()
    _, again = await project.said("config.reloaded", count=2)
    assert again["changed"] == []
    task.cancel()


async def test_loop_is_free_while_a_file_is_read(project: Project) -> None:
    reloading = project.open(reload_interval=0)
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(loaded: Loaded) -> Made:
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
        return made(loaded)

    reloading._make = slow
    task = asyncio.create_task(reloading.run())
    project.write("two")
    reloading.hurry()
    await asyncio.sleep(0)
    released.set()

    await project.has("two")
    task.cancel()


async def test_catching_up(project: Project) -> None:
    """What another process had is read at once; what is not there is not waited for."""
    reloading = project.open(reload_interval=0)
    later = reloading._up_to_date + 1
    project.write("two")
    version = version_of(project.file.read_bytes())

    assert (await reloading.catch_up("", later)).routes == ["one"]
    assert (await reloading.catch_up(version, later - 2)).routes == ["one"]
    assert (await reloading.catch_up("0" * 12, later)).routes == ["one"]
    assert project.stream.getvalue() == b""
    reloading._up_to_date = later - 2
    assert (await reloading.catch_up(version, later)).routes == ["two"]
    await project.said("config.reloaded")


async def test_old_secrets_stay_masked(project: Project) -> None:
    audit.configure(stream=project.stream, secrets=[OLD])
    log = audit.bound()
    task = asyncio.create_task(project.open().run())
    (project.folder / "secret").write_text(NEW)
    await project.said("config.reloaded")

    log.info("told", old=OLD, new=NEW)
    await project.said("told")

    assert project.lines("told")[0]["old"] == project.lines("told")[0]["new"] == audit.REDACTED
    task.cancel()


def test_retired_secrets_are_bounded() -> None:
    redact = audit.Redactor(["secret-0"])
    for number in range(1, 1000):
        redact.exchange([f"secret-{number}."])

    assert redact("secret-999. secret-998. secret-1.") == "**** **** secret-1."
    assert len(redact._secrets) == audit.RETIRED + 1


def test_secret_that_comes_back_is_current_again() -> None:
    redact = audit.Redactor(["one"])
    redact.exchange(["two"])
    redact.exchange(["one"])

    assert redact("one two") == "**** ****"
    assert redact._secrets.count("one") == 1
