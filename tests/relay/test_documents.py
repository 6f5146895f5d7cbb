"""What the documents show works."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path, PurePosixPath

import yaml

from config.loading import load
from relay.notices import rehearse_notices
from relay.planning import rehearse

ROOT = Path(__file__).parents[2]
RELAYS = ("relay", "worker", "console")
"""Services of docker-compose.yml that run deploy-relay."""
DATA = "/var/lib/deploy-relay"


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


def test_containers_share_the_audit_file_and_what_was_counted() -> None:
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
        # To be written by the console too: what people do there are lines of the audit.
        assert f"relay-data:{DATA}" in service["volumes"]


def test_every_audit_event_is_documented() -> None:
    documented = (ROOT / "docs" / "audit.md").read_text("utf-8")
    rooms = [*(ROOT / "relay").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    code = "".join(file.read_text("utf-8") for file in rooms)
    things = (
        "config|delivery|notice|route|deploy|target|process|receiver|worker|relay|console|token"
        "|audit|metrics|ledger"
    )
    # Names in the call that writes them, over a line break where there is one.
    events = set(re.findall(rf'(?:log\.[a-z]+\(|step = )\s*"((?:{things})\.[a-z_]+)"', code))

    assert {"delivery.queued", "deploy.failed", "deploy.duplicate", "relay.stopped"} <= events
    assert {event for event in events if f"`{event}`" not in documented} == set()
