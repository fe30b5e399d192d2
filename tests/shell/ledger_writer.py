"""A process that writes a ledger until it is stopped: `python -m tests.shell.ledger_writer PATH [SIZE_MAX]`.

It writes transactions of three orders each, and says each one's number once it is on disk. With SIZE_MAX no
file may grow beyond that many bytes; after the first failure the bound is lifted and one more is written.
"""

import resource
import sys
from pathlib import Path

from dea_daemon.domain.errors import LedgerError
from dea_daemon.shell.ledger import Batch, Ledger
from tests.shell.ledger_samples import NOW, UNIVERSE, order

PER_WRITE = 3


def batch(number: int) -> Batch:
    return Batch(intents=[order(PER_WRITE * number + n, reason="x" * 400) for n in range(PER_WRITE)])


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> None:
    ledger = Ledger.open(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    number = 0
    while True:
        waiting = batch(number)
        try:
            ledger.write(waiting, UNIVERSE, NOW)
            say(number)
        except LedgerError as error:
            say("failed", len(waiting.intents), error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            ledger.write(waiting, UNIVERSE, NOW)
            ledger.check()
            say(number)
            return
        number += 1


if __name__ == "__main__":
    main()
