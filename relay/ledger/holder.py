"""Who holds a lock file: as the file says it, as the kernel knows it, and how to end a stopped one.

A process that is stopped (SIGSTOP) while it has the ledger's lock stops every writer of the
machine. It cannot be asked to let go, so a process that waits ends it, if it is certain whom it
ends: the kernel must say that this process has the lock, and the process must be stopped, of the
same user and in the same namespace of process ids.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import msgspec

RECORD_BYTES = 256
"""Bytes of a lock file that say who holds it, padded with blanks."""

_STOPPED = "T"
"""The state of a stopped process in proc(5). One that a debugger stopped has ``t``."""


class Holder(msgspec.Struct, frozen=True):
    """A process that took a lock."""

    pid: int
    started: int
    """When the process started, in clock ticks since boot (proc(5), field 22 of stat)."""
    namespace: str = ""
    """Its namespace of process ids, as in /proc/self/ns/pid; empty where that cannot be read."""
    turn: int = 0
    """How many locks it had taken before: two records of one process differ."""

    @property
    def started_at(self) -> float:
        """When the process started, in seconds since the Unix epoch; 0 where it is not known."""
        if not self.started:
            return 0.0
        since_boot = self.started / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


class Stuck(msgspec.Struct, frozen=True):
    """A lock that one process has kept for too long."""

    holder: Holder
    seconds: float
    """For how long at least."""
    is_killed: bool = False
    """The process was stopped, and has been ended."""


def this_process() -> Holder:
    """Return this process as a lock file names it."""
    return _process(os.getpid())


def read_holder(file: int) -> Holder | None:
    """Return the process that an open lock file names, if any. It may have let go since."""
    try:
        return msgspec.json.decode(os.pread(file, RECORD_BYTES, 0), type=Holder)
    except (msgspec.DecodeError, OSError):
        return None


def find_holder(file: int) -> Holder | None:
    """Return the process that keeps an open lock file, if it is known. The file names it, unless
    the kernel knows better: a process may be stopped when it has the lock and has not signed."""
    named = read_holder(file)
    pids = pids_with_lock(file)
    if pids and (named is None or named.pid not in pids):
        return _process(pids[0])
    return named


def write_holder(file: int, holder: Holder) -> None:
    """Name the process that holds a lock file; on a disk that takes nothing, name none."""
    record = msgspec.json.encode(holder).ljust(RECORD_BYTES)
    try:
        os.pwrite(file, record, 0)
    except OSError:
        # A wrong name would be worse than none: who is named may be ended.
        with suppress(OSError):
            os.ftruncate(file, 0)


def is_locked_by(file: int, pid: int) -> bool:
    """Return whether the kernel says that process ``pid`` has locked an open file (flock)."""
    return pid in pids_with_lock(file)


def is_stopped(holder: Holder) -> bool:
    """Return whether the process is stopped, and is the one that was named."""
    return _stat(holder.pid) == (_STOPPED, holder.started)


def end_if_stopped(file: int, holder: Holder) -> bool:
    """End the process that holds an open lock file with SIGKILL if it is stopped, of this user and
    in this namespace. Return whether it was."""
    me = this_process()
    if not me.namespace or holder.namespace != me.namespace or holder.pid == me.pid:
        return False
    with suppress(OSError):
        process = _pidfd(holder.pid)
        try:
            if not _may_be_ended(file, holder):
                return False
            if process is None:
                os.kill(holder.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            if process is not None:
                os.close(process)
        return True
    return False


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that names the process for good, as its pid may be another's a moment
    later; None where the kernel or a sandbox has none. Raises OSError."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise


def _may_be_ended(file: int, holder: Holder) -> bool:
    return (
        os.stat(f"/proc/{holder.pid}").st_uid == os.geteuid()
        and is_stopped(holder)
        and is_locked_by(file, holder.pid)
    )


def _process(pid: int) -> Holder:
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
    return Holder(pid, _stat(pid)[1], namespace)


def pids_with_lock(file: int) -> list[int]:
    """Return the processes that the kernel says have locked an open file (flock)."""
    inode = os.fstat(file).st_ino
    pids = []
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF; a waiting one has -> behind 1:
            words = line.split()
            # Some file systems show another device here than stat(2) does.
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
                pids.append(int(words[4]))
    # The kernel has no number here for a process of another container.
    return [pid for pid in pids if pid > 0]


def _stat(pid: int) -> tuple[str, int]:
    """Return the state of a process, and when it started in clock ticks since boot."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        # The name of the program stands in brackets and may hold anything.
        words = text.rpartition(")")[2].split()
        return words[0], int(words[19])
    return "", 0
