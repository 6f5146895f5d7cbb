"""What the documents show works."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import click
import pytest
import yaml

from config.loading import load
from config.settings import Settings
from relay.cli import main
from relay.console.api import ENDPOINTS
from relay.notices import rehearse_notices
from relay.planning import rehearse

ROOT = Path(__file__).parents[2]
RELAYS = ("relay", "worker", "console")
"""Services of docker-compose.yml that run deploy-relay."""
DATA = "/var/lib/deploy-relay"

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
)
OTHERS = [
    ROOT / "docker-compose.yml",
    ROOT / "config" / "prometheus" / "alerts.yaml",
    ROOT / "docs" / "relay.example.yaml",
]
"""Files for operators that are no pages."""

OF_TOOLS = re.compile(r"RELAY_(?:BIN|TORTURE_MINUTES|TEST_\w+|BENCH_\w+)")
"""Variables of tests and benchmarks, which are no settings of deploy-relay."""

EVENT = (
    r"(?:audit|config|console|delivery|deploy|ledger|metrics|notice|process|queue|receiver|relay"
    r"|route|target|token|worker)\.[a-z_]+"
)


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_example_file_is_valid() -> None:
    loaded = load(ROOT / "docs" / "relay.example.yaml", secrets_of=())
    assert rehearse(loaded) + rehearse_notices(loaded) == []


def test_examples_of_the_readme_are_valid(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert len(examples) == 2
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(textwrap.dedent(example), "utf-8")
        loaded = load(file, secrets_of=())
        assert rehearse(loaded) + rehearse_notices(loaded) == []


def test_containers_see_a_new_relay_yaml() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    for name in RELAYS:
        service = compose["services"][name]
        file = PurePosixPath(service["environment"]["RELAY_CONFIG"])
        places = [volume.split(":")[1] for volume in service["volumes"]]
        # A file that is mounted alone stays the old one when another is put in its place.
        assert str(file.parent) in places
        assert str(file) not in places
        assert set(service.get("secrets", ())) <= set(compose["secrets"])


def test_containers_share_the_ledger_and_the_audit_file() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    services = [compose["services"][name] for name in RELAYS]
    audits = [
        {name: value for name, value in service["environment"].items() if "_AUDIT_" in name}
        for service in services
    ]
    assert audits == [audits[0]] * len(RELAYS)
    assert {service["environment"]["RELAY_DATA_DIR"] for service in services} == {DATA}
    assert PurePosixPath(audits[0]["RELAY_AUDIT_FILE"]).is_relative_to(DATA)
    for service in services:
        # To be written by the console too: what people do there is committed and audited.
        assert f"relay-data:{DATA}" in service["volumes"]
    # Nothing in Redis has to last.
    assert set(compose["volumes"]) == {"relay-data"}


def test_every_audit_event_is_documented_and_none_that_is_gone() -> None:
    rooms = [*(ROOT / "relay").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    code = "\n".join(file.read_text("utf-8") for file in rooms)
    # Names in the call that writes them, over a line break where there is one.
    written = set(re.findall(rf'(?:log\.[a-z]+\(|event=|"event": |else)\s*"({EVENT})"', code))

    assert {"delivery.queued", "deploy.failed", "deploy.duplicate", "relay.stopped"} <= written
    assert {"deploy.dismissed", "audit.mended", "ledger.behind", "queue.rebuilt"} <= written
    assert _documented_events() == written


def test_examples_of_the_audit_have_documented_fields() -> None:
    text = (ROOT / "docs" / "audit.md").read_text("utf-8")
    [examples] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    lines = [json.loads(line) for line in examples.splitlines()]

    assert len(lines) > 15
    assert {line["event"] for line in lines} <= _documented_events()
    assert {field for line in lines for field in line} <= set(re.findall(r"`(\w+)`", text))


def test_every_setting_that_is_named_exists_and_is_in_the_readme() -> None:
    settings = {f"RELAY_{name.upper()}" for name in Settings.model_fields}
    # The changes also name settings that went.
    files = [file for file in (*DOCUMENTS, *OTHERS) if file.name != "CHANGELOG.md"]
    named = {_name(file): _settings_in(file) for file in files}

    unknown = {name: found - settings for name, found in named.items()}
    assert {name: found for name, found in unknown.items() if found} == {}
    assert settings - named["README.md"] == set()


@pytest.mark.parametrize("file", [*DOCUMENTS, *OTHERS], ids=_name)
def test_every_command_that_is_named_exists(file: Path) -> None:
    wrong = [line for line in _commands_in(file.read_text("utf-8")) if not _exists(line)]
    assert wrong == []


def test_the_readme_has_a_row_for_every_command() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [table] = re.findall(r"\| command \| does \|\n\| --- \| --- \|\n(.*?)\n\n", readme, re.DOTALL)
    rows = [re.findall(r"`([^`]+)`", row.split(" | ")[0]) for row in table.splitlines()]
    named = [line for row in rows for line in row]

    assert [line for line in named if not _exists(line)] == []
    assert {line.split()[0] for line in named} | {"tail"} == set(main.commands)


def test_every_endpoint_of_the_api_is_documented() -> None:
    text = (ROOT / "docs" / "console.md").read_text("utf-8")
    [table] = re.findall(r"\| endpoint \| does \|\n(.*?)\n\n", text, re.DOTALL)
    cells = [line.split(" | ")[0] for line in table.splitlines()[1:]]
    documented = set()
    for cell in cells:
        method = ""
        for span in re.findall(r"`([^`]+)`", cell):
            method, path = span.split() if " " in span else (method, span)
            documented.add((method, path))

    paths = {(one.method, re.sub(r"\{(\w+)\}", _capital, one.path)) for one in ENDPOINTS}
    assert documented == paths


def test_commands_are_found_in_documents() -> None:
    found = [line for file in DOCUMENTS for line in _commands_in(file.read_text("utf-8"))]
    assert len(found) > 40
    assert not _exists("deploys forget")
    assert not _exists("deploys list --colour")


@pytest.mark.parametrize("file", DOCUMENTS, ids=_name)
def test_every_file_and_tool_of_this_project_that_is_named_exists(file: Path) -> None:
    text = file.read_text("utf-8")
    paths = set(re.findall(r"`((?:config|relay|workers|tests|benchmarks|docs)/[\w./-]*)`", text))
    modules = set(re.findall(r"python -m ((?:tests|benchmarks)\.[\w.]+)", text))
    files = {f"{module.replace('.', '/')}.py" for module in modules}

    # What a run leaves behind is not part of the project.
    named = {name for name in paths | files if not name.startswith("benchmarks/results/")}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    # Beside the name of a folder the name of a file stands alone.
    rooms = ("config", "relay", "workers", "tests", "benchmarks")
    here = {one.name for room in rooms for one in (ROOT / room).rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", text)) - here == set()


@pytest.mark.parametrize("file", DOCUMENTS, ids=_name)
def test_links_between_documents_resolve(file: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        goal = file.parent / path if path else file
        if re.match(r"[a-z]+:", link):
            continue
        if not goal.exists() or (anchor and anchor not in _anchors(goal)):
            wrong.append(link)
    assert wrong == []


def test_every_document_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pages = {f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if f"({page}" not in readme} == set()


def _capital(found: re.Match[str]) -> str:
    return found[1].upper()


def _documented_events() -> set[str]:
    text = (ROOT / "docs" / "audit.md").read_text("utf-8")
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {event for cell in cells for event in re.findall(rf"`({EVENT})`", cell)}


def _settings_in(file: Path) -> set[str]:
    names = re.findall(r"\bRELAY_[A-Z_]*[A-Z]\b", file.read_text("utf-8"))
    return {name for name in names if not OF_TOOLS.fullmatch(name)}


def _commands_in(text: str) -> Iterator[str]:
    """Yield what follows `deploy-relay` in code."""
    blocks = re.findall(r"^[ ]*\$ (?:\w+=\S+ )*deploy-relay (.+)$", text, re.MULTILINE)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = re.findall(r"`(?:\w+=\S+ )*deploy-relay\s([^`]+)`", prose)
    for line in (*blocks, *spans):
        yield re.split(r" [|#] | 2?>", " ".join(line.split()))[0]


def _exists(line: str) -> bool:
    """Return whether a command and its options are those of the command line. COMMAND is any."""
    command: click.Command = main
    words = [word for word in shlex.split(line) if word != "COMMAND"]
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.commands.get(words.pop(0))
        if found is None:
            return False
        command = found
    options = {option for one in command.params for option in one.opts} | {"--help", "--version"}
    return all(word.split("=")[0] in options for word in words if word.startswith("-") and word[1:])


def _anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", file.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}
