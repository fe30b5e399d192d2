"""One instance: an advisory lock that the kernel drops when the process dies, however it dies."""

import fcntl
import os
from pathlib import Path

from dea_daemon.domain.errors import LedgerError


class InstanceLock:
    """An exclusive flock on `path`, which names the holder's pid. Local file systems only (not NFS).

    The file stays behind on release: removing it would let two processes hold locks on two files of one name.
    A forked child shares the lock, so workers must be spawned.
    """

    def __init__(self, path: Path) -> None:
        """Raises LedgerError, naming the holder, when another process has it, or the file cannot be made."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise LedgerError(f"{path}: held by process {holder or '?'}: is it running already?") from error
        except OSError as error:
            os.close(self._fd)
            raise LedgerError(f"{path}: {error.strerror}") from error

    def release(self) -> None:
        """Give it up. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
