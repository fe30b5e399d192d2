"""What `dea-daemon calibrate` is asked, and the log of what it tried."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dea_daemon.research.calibration import Verdict
from dea_daemon.research.validation import Significance

LOG = ".trials.jsonl"
EVER, NEVER = 0, 1 << 62


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `made` is the date the file carries; today where it is empty. `ledger` is of the
    operator's own fills."""

    history: Path
    out: Path
    made: str
    from_ns: int = EVER
    to_ns: int = NEVER
    trials: int = 200
    workers: int = 1
    ray: bool = False
    forecasters: bool = True
    bands: bool = True
    ledger: Path | None = None
    seed: int = 7
    json_lines: bool = False
    command: str = ""


class Trials:
    """The log of every trial, JSON lines beside the file to be written, added to what earlier calls left there:
    whoever searches twice has looked twice, and the deflated Sharpe ratio counts it."""

    def __init__(self, file: IO[str], earlier: int) -> None:
        self._file = file
        self.earlier, self.count = earlier, 0

    def tell(self, stage: str, trial: int, parameters: dict[str, Any], loss: float, **other: Any) -> None:
        line = {"stage": stage, "trial": trial, "parameters": parameters, "loss": loss, **other}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.count += 1


@contextmanager
def logged(out: Path) -> Iterator[Trials]:
    """The log beside `out`. Interrupted, it says how many trials are in it."""
    log = out.with_name(out.name + LOG)
    earlier = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    with log.open("a", encoding="utf-8") as file:
        trials = Trials(file, earlier)
        try:
            yield trials
        except (KeyboardInterrupt, SystemExit):
            sys.stderr.write(f"interrupted: {trials.count:,} trials are in {log}\n")
            raise


def significance(found: Significance) -> dict[str, float]:
    """For the file."""
    return {"t": round(found.statistic, 3), "p": round(found.p, 5)}


def choice(told: Verdict, best: Any, adopted: bool) -> dict[str, Any]:
    """What every stage says of its choice."""
    return {
        "chosen_over_incumbent": significance(told.against),
        "overfitting": told.overfit,
        "best": best,
        "adopted": adopted,
    }
