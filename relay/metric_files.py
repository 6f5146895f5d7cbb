"""The metrics of all processes of a machine, in files under ``<RELAY_DATA_DIR>/metrics``.

Each process saves its numbers as one JSON file and holds a lock file for as long as it lives. A
process that finds a free lock adds the numbers of its dead owner to ``past.json`` and removes its
files, so that a total never falls and files do not pile up. Locks show which processes live, not
process ids: containers that share the folder all have a process 1.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from relay.metrics import Key, Numbers, add

_PAST = "past.json"
_LOCK = ".lock"
_MOST_BYTES = 32 * 1024 * 1024
"""Bytes of a file at most; a larger one is not of deploy-relay."""


class MetricFiles:
    """The folder, as one process sees it. Every method may block, and raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = uuid4().hex
        self._held: int | None = None
        self._serves: int | None = None

    def open(self) -> None:
        """Take the lock of this process."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._alone():
            self._held = _lock(self._file(_LOCK))
            self._fold()

    def close(self) -> None:
        """Release the locks. The next process that looks adds the saved numbers to the past."""
        for number in (self._held, self._serves):
            if number is not None:
                os.close(number)
        self._held = self._serves = None

    def save(self, encoded: bytes) -> None:
        """Write this process's numbers, as ``encode`` returns them."""
        _write(self._file(".json"), encoded)

    def total(self) -> Numbers:
        """Return the sums over all processes, ended ones included."""
        if not self._folder.is_dir():
            return {}
        total: Numbers = {}
        with self._alone():
            self._fold()
            for path in self._folder.glob("*.json"):
                add(total, _numbers(_read(path)))
        return total

    def serves(self) -> bool:
        """Return whether this is the one process of the folder that answers scrapes."""
        if self._serves is None:
            self._serves = _lock(self._folder / "serving")
        return self._serves is not None

    def _fold(self) -> None:
        past = self._folder / _PAST
        saved = _read(past)
        # These were added to the past; a process was killed before it removed their files.
        added = [str(name) for name in saved.get("added", ())]
        total = _numbers(saved)
        dead: list[tuple[str, int]] = []
        for path in self._folder.glob(f"*{_LOCK}"):
            number = None if path.stem == self._name else _lock(path)
            if number is not None:
                dead.append((path.stem, number))
        if not dead:
            return
        try:
            for name, _ in dead:
                if name not in added:
                    add(total, _numbers(_read(self._folder / f"{name}.json")))
            _write(past, encode(total, added=[name for name, _ in dead]))
            for name, _ in dead:
                for suffix in (".json", ".new", _LOCK):
                    (self._folder / f"{name}{suffix}").unlink(missing_ok=True)
        finally:
            for _, number in dead:
                os.close(number)

    def _file(self, suffix: str) -> Path:
        return self._folder / f"{self._name}{suffix}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        number = os.open(self._folder / "all", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield
        finally:
            os.close(number)


def encode(numbers: Numbers, **more: Any) -> bytes:
    """Return numbers as a file has them."""
    return orjson.dumps({"numbers": [[*key, row] for key, row in numbers.items()], **more})


def _numbers(saved: dict[str, Any]) -> dict[Key, list[float]]:
    try:
        return {
            tuple(str(part) for part in key): [float(number) for number in row]
            for *key, row in saved.get("numbers", ())
        }
    except (TypeError, ValueError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file; empty where it is missing or damaged, as after a power cut."""
    with suppress(FileNotFoundError, orjson.JSONDecodeError):
        if path.stat().st_size <= _MOST_BYTES:
            saved = orjson.loads(path.read_bytes())
            return saved if isinstance(saved, dict) else {}
    return {}


def _write(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def _lock(path: Path) -> int | None:
    """Return the number of a file that is locked while open; None if another process has it."""
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return None
    return number
