"""The console in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from relay.ledger.ledger import Ledger
from tests.console.desk import token
from tests.console.ledger_rows import LedgerRows
from tests.harness import COMMAND, SECRETS, Process, Relay, github_push

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)

Scheme = Literal["light", "dark"]

LIGHT, DARK = "rgb(251, 251, 250)", "rgb(21, 24, 27)"
"""What the style sheet gives to a page as its background."""

PATIENCE = 60_000
"""Milliseconds in which a busy machine's browser starts, and shows what it is to show."""

expect.set_options(timeout=PATIENCE)

PICTURES = os.environ.get("RELAY_TEST_PICTURES")
"""A folder for what the browser showed; none is written without."""


@dataclass(slots=True)
class Visitor:
    """A person before a browser, and all that the browser complained about."""

    page: Page
    url: str
    paper: str = LIGHT
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        def hear(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.complaints.append(message.text)

        self.page.on("console", hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, path: str) -> None:
        await self.page.goto(self.url + path)

    async def picture(self, name: str) -> None:
        if PICTURES:
            await self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)

    async def fits(self) -> None:
        """Nothing is wider than the window, once the style sheet has come."""
        await expect(self.page.locator("body")).to_have_css("background-color", self.paper)
        wide = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{self.page.url} is {wide} px too wide"


@pytest.fixture
async def console(relay: Relay) -> Process:
    process = await relay.start(*COMMAND, "console")
    await process.wait_for("console.started")
    return process


@pytest.fixture
async def rows(relay: Relay, console: Process) -> AsyncIterator[LedgerRows]:
    """What a receiver and a worker beside the console write."""
    ledger = Ledger(relay.folder / "relay-data")
    yield LedgerRows(ledger)
    await ledger.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            timeout=PATIENCE,
        )
        yield browser
        await browser.close()


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        pytest.param("dark", 1280, marks=pytest.mark.slow),
        pytest.param("light", 390, marks=pytest.mark.slow),
        pytest.param("dark", 360, marks=pytest.mark.slow),
    ],
)
async def test_a_person_follows_a_push(
    console: Process, rows: LedgerRows, browser: Browser, scheme: Scheme, width: int
) -> None:
    text = await token(rows.ledger, "operator", "ann")
    page = await browser.new_page(
        color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    visitor = Visitor(
        page, console.find("console.started")[0]["url"], DARK if scheme == "dark" else LIGHT
    )
    visitor.listen()
    name = f"{scheme}-{width}"

    # Logs in with the keyboard alone; the field has the focus.
    await visitor.open("/deploys")
    await expect(page).to_have_url(f"{visitor.url}/login")
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="What needs attention")).to_be_visible()
    await visitor.fits()

    # The first Tab stop skips to the content.
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()

    # Watches a push arrive.
    await page.get_by_role("link", name="Deploys", exact=True).click()
    await expect(page.get_by_text("Nothing has been deployed yet")).to_be_visible()
    await expect(page.locator("#live-state")).to_have_text("● live")
    deploy = await rows.failed("one", message="Mend the login")
    row = page.get_by_role("row").filter(has_text="acme/web")
    await expect(row).to_contain_text("failed")
    await expect(row).to_contain_text("HTTP 404")
    await expect(page.locator("#live-said")).to_contain_text("production acme/web main")
    await visitor.fits()
    await visitor.picture(f"deploys-{name}")

    # Opens it, and the timeline of its delivery.
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("production: acme/web")
    await visitor.fits()
    await page.get_by_role("link", name="delivery-1").click()
    await expect(page.get_by_text("1 of 3 routes match now")).to_be_visible()
    await expect(page.get_by_text("repo acme/web does not match acme/api")).to_be_hidden()
    await page.get_by_text("is about other repositories").click()
    await expect(page.get_by_text("repo acme/web does not match acme/api")).to_be_visible()
    await visitor.fits()
    await visitor.picture(f"delivery-{name}")

    # Replays it; the page follows by itself.
    await page.get_by_role("link", name="Replay…").last.click()
    await page.get_by_role("button", name="Yes, replay").click()
    await expect(page.get_by_text("This is the replay")).to_be_visible()
    await rows.end("deploy-2")
    await expect(page.locator("h1 .status")).to_contain_text("succeeded")
    [acted] = await console.wait_for("console.acted")
    assert (acted["by"], acted["deploy"], acted["new"]) == ("ann", deploy, "deploy-2")

    # Is asked twice before something newer is replaced.
    await visitor.open(f"/deploys/{deploy}/replay")
    await page.get_by_role("button", name="Yes, replay").click()
    await expect(page.get_by_role("alert")).to_contain_text("replayed as deploy-2")
    await visitor.fits()
    await visitor.picture(f"replay-{name}")
    await page.get_by_role("link", name="No, go back").click()

    # Dismisses a deploy of which nobody knows whether it went out; the form wants a reason.
    await rows.end(await rows.deploy("two"), "uncertain", "no answer in 5 s")
    await visitor.open("/")
    await page.get_by_role("link", name="1 deploy uncertain").click()
    await page.get_by_role("row").filter(has_text="acme/web").get_by_role("link").click()
    await expect(page.get_by_text("It may have deployed: check there")).to_be_visible()
    await page.get_by_role("link", name="Dismiss…").click()
    await expect(page.get_by_label("Reason")).to_be_focused()
    await visitor.fits()
    await page.keyboard.type("It is live, I looked")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("ann dismissed it.")).to_be_visible()
    await visitor.picture(f"dismissed-{name}")

    # Asks what a payload would cause.
    await page.get_by_role("link", name="Routes", exact=True).click()
    await page.get_by_label("Source").select_option("github")
    await page.get_by_label("Payload").fill(github_push(repo="acme/api").decode())
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("heading", name="1 of 3 routes match")).to_be_visible()
    await visitor.fits()
    await visitor.picture(f"routes-{name}")

    # Looks for it in the history, and by words of its message.
    await page.get_by_role("link", name="History", exact=True).click()
    await page.get_by_label("Event").fill("deploy.failed")
    await page.keyboard.press("Enter")
    row = page.get_by_role("row").filter(has_text="acme/web")
    await expect(row).to_contain_text("HTTP 404")
    await visitor.fits()
    await visitor.picture(f"history-{name}")
    await page.get_by_role("link", name="Deliveries", exact=True).click()
    await page.get_by_label("Words").fill("LOGIN")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("1 delivery matches.")).to_be_visible()
    await visitor.fits()
    await visitor.picture(f"words-{name}")

    await page.get_by_role("link", name="deploy-relay").click()
    await expect(page.get_by_role("img", name="In the last hour")).to_be_visible()
    await visitor.fits()
    await visitor.picture(f"overview-{name}")
    html = await page.content()
    assert not [secret for secret in (*SECRETS, text) if secret in html]
    # The browser says of itself that the first answer to the replay was a refusal.
    assert [text for text in visitor.complaints if "409 (Conflict)" not in text] == []
    # It ends though a page is open.
    assert await console.stop() == 0
    assert json.dumps(console.find("console.stopped"))


async def test_what_the_policy_forbids_is_heard(console: Process, browser: Browser) -> None:
    """The test above would notice an inline script."""
    visitor = Visitor(await browser.new_page(), console.find("console.started")[0]["url"])
    visitor.listen()
    await visitor.open("/login")
    async with visitor.page.expect_console_message():
        await visitor.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))"
        )

    assert "Content Security Policy" in visitor.complaints[0]
