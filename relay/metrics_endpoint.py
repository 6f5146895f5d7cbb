"""The endpoint ``/metrics``: its page, and the small server that answers scrapes.

``counted`` saves a process's metrics while its block lasts. With RELAY_METRICS_PORT one process of
a machine answers at ``/metrics`` for all of them; when it ends, another one takes over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from config.model import Target
from config.settings import Settings
from relay import audit
from relay.audit import log
from relay.gauges import Gauge, read
from relay.metric_files import MetricFiles, encode
from relay.metrics import METRICS, Key, Metric, Numbers, counters

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

SAVE_EACH = 1.0
"""Seconds between two writes of the metrics; a killed process loses the last of them."""

FRESH = 1.0
"""Seconds for which a page is served again."""

_diagnostics = logging.getLogger("relay.metrics_endpoint")

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def metrics_page(settings: Settings, targets: Mapping[str, Target]) -> bytes:
    """Return the answer to a scrape, in the text format of ``CONTENT_TYPE``. Blocking.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    return page(_total(settings), read(settings, targets))


def page(numbers: Numbers, gauges: Iterator[Gauge]) -> bytes:
    """Return the page of these numbers."""
    registry = CollectorRegistry()
    registry.register(_Collected([*_families(numbers), *map(_gauge, gauges)]))
    return generate_latest(registry)


def _total(settings: Settings) -> Numbers:
    try:
        return MetricFiles(settings.metrics_folder).total()
    except OSError as error:
        _diagnostics.error("metrics cannot be read: %s", error.strerror)
        return {}


class Pages:
    """Answers scrapes. One page is made at a time, and served for ``FRESH`` seconds."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._page, self._at = b"", -FRESH

    async def answer(self, make: Callable[[], bytes]) -> web.Response:
        """Return the page of ``make``, which runs in a thread, or the one of a moment ago."""
        async with self._turn:
            if time.monotonic() - self._at >= FRESH:
                self._page = await asyncio.to_thread(make)
                self._at = time.monotonic()
        return web.Response(body=self._page, headers={"Content-Type": CONTENT_TYPE})


class _Collected(Collector):
    def __init__(self, families: list[_Family]) -> None:
        self._families = families

    def collect(self) -> list[_Family]:
        return self._families


def _families(numbers: Numbers) -> Iterator[_Family]:
    """Yield every metric, also those without a count, so that a rate begins at 0."""
    of: dict[str, list[tuple[Key, list[float]]]] = {name: [] for name in METRICS}
    for (name, *labels), row in numbers.items():
        of[name].append((tuple(labels), row))
    for name, metric in METRICS.items():
        rows = of[name]
        if not metric.labels and not rows:
            rows = [((), [0.0] * (len(metric.buckets) + 2 if metric.buckets else 1))]
        yield _histogram(name, metric, rows) if metric.buckets else _counter(name, metric, rows)


def _counter(name: str, metric: Metric, rows: list[tuple[Key, list[float]]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, metric.help, labels=metric.labels)
    for labels, [number] in rows:
        family.add_metric(labels, number)
    return family


def _histogram(
    name: str, metric: Metric, rows: list[tuple[Key, list[float]]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    bounds = [*map(str, metric.buckets), "+Inf"]
    for labels, [*counts, total] in rows:
        reached = 0.0
        buckets = []
        for bound, count in zip(bounds, counts, strict=True):
            reached += count
            buckets.append((bound, reached))
        family.add_metric(labels, buckets, total)
    return family


def _gauge(gauge: Gauge) -> GaugeMetricFamily:
    labels = [gauge.label] if gauge.label else []
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=labels)
    for value, number in gauge.values:
        family.add_metric([value] if labels else [], number)
    return family


@asynccontextmanager
async def counted(
    settings: Settings,
    process: str,
    targets: Callable[[], Mapping[str, Target]],
) -> AsyncIterator[None]:
    """Count audit lines while the block lasts, and answer scrapes if no other process does.

    ``process`` is receiver or worker. ``targets`` returns those of the current relay.yaml.
    """
    audit.observe(counters.audited)
    counting = _Counting(settings, process, targets)
    task = asyncio.create_task(counting.run())
    try:
        yield
    finally:
        counting.stopping.set()
        await task


class _Counting:
    def __init__(
        self,
        settings: Settings,
        process: str,
        targets: Callable[[], Mapping[str, Target]],
    ) -> None:
        self.stopping = asyncio.Event()
        self._settings = settings
        self._process = process
        self._targets = targets
        self._expected: Mapping[str, Target] | None = None
        self._files = MetricFiles(settings.metrics_folder)
        self._opened = False
        self._warned: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._pages = Pages()

    async def run(self) -> None:
        """Save, and serve where a port is set, until ``stopping``. Errors here never stop what the
        metrics are about."""
        try:
            while not self.stopping.is_set():
                await self._step()
                try:
                    async with asyncio.timeout(SAVE_EACH):
                        await self.stopping.wait()
                except TimeoutError:
                    continue
            if self._runner is not None:
                await self._runner.cleanup()
            await self._save()
        except OSError as error:
            self._warn("the last metrics are lost", error)
        except Exception:
            _diagnostics.exception("counting stopped")
        finally:
            self._files.close()

    async def _step(self) -> None:
        settings, targets = self._settings, self._targets()
        if targets is not self._expected:
            counters.expect(targets, self._process)
            self._expected = targets
        try:
            await self._save()
        except OSError as error:
            self._warn("metrics are kept in memory only", error)
        if settings.metrics_port is None or self._runner is not None:
            return
        try:
            # Without a folder there are no other processes to share the port with.
            if not self._opened or self._files.serves():
                await self._serve(settings.metrics_host, settings.metrics_port)
        except OSError as error:
            self._warn("scrapes are not answered", error)

    def _warn(self, what: str, error: OSError) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _diagnostics.error("%s: %s", what, error.strerror or type(error).__name__)

    async def _save(self) -> None:
        if not self._opened:
            await asyncio.to_thread(self._files.open)
            self._opened = True
        if counters.changed:
            counters.changed = False
            try:
                await asyncio.to_thread(self._files.save, encode(counters.numbers))
            except OSError:
                counters.changed = True
                raise

    async def _serve(self, host: str, port: int) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        host, port = runner.addresses[0][:2]
        log.info("metrics.started", url=f"http://{host}:{port}/metrics")

    async def _answer(self, _: web.Request) -> web.Response:
        with suppress(OSError):
            await self._save()
        return await self._pages.answer(self._make)

    def _make(self) -> bytes:
        numbers = _total(self._settings) if self._opened else dict(counters.numbers)
        return page(numbers, read(self._settings, self._targets()))
