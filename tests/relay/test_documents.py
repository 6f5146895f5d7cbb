"""What the documents show works."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from config.loading import load
from relay.planning import rehearse

ROOT = Path(__file__).parents[2]


def test_example_file_is_valid() -> None:
    assert rehearse(load(ROOT / "docs" / "relay.example.yaml", secrets_of=())) == []


def test_examples_of_the_readme_are_valid(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert len(examples) == 2
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(textwrap.dedent(example), "utf-8")
        assert rehearse(load(file, secrets_of=())) == []


def test_every_audit_event_is_documented() -> None:
    documented = (ROOT / "docs" / "audit.md").read_text("utf-8")
    rooms = [*(ROOT / "relay").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    code = "".join(file.read_text("utf-8") for file in rooms)
    things = "config|delivery|route|deploy|target|process|receiver|worker|relay|console|token"
    # Names in the call that writes them, over a line break where there is one.
    events = set(re.findall(rf'(?:log\.[a-z]+\(|step = )\s*"((?:{things})\.[a-z_]+)"', code))

    assert {"delivery.queued", "deploy.failed", "deploy.duplicate", "relay.stopped"} <= events
    assert {event for event in events if f"`{event}`" not in documented} == set()
