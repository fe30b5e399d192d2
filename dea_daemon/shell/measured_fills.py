"""The measured orders of a ledger that were filled, as arrays."""

import sqlite3
from pathlib import Path

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.research.measured_costs import Filled
from dea_daemon.shell.explain import reading
from dea_daemon.shell.tca import NO_TABLE

_ROWS = """SELECT ended_ns, filled_usd, fee_usd, delay_usd + impact_usd + spread_usd FROM shortfalls
    WHERE filled_usd > 0 AND fee_usd + delay_usd + impact_usd + spread_usd IS NOT NULL ORDER BY ended_ns"""


def filled(ledger: Path) -> Filled:
    """Orders of which a part of the cost is not known are left out. Raises FileNotFoundError, LedgerError, or DataError
    where none was measured."""
    with reading(ledger) as db:
        db.row_factory = sqlite3.Row
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'shortfalls'").fetchone():
            raise DataError(f"{ledger}: {NO_TABLE}")
        rows = db.execute(_ROWS).fetchall()
    if not rows:
        raise DataError(f"{ledger}: no measured order was filled")
    ended_ns, usd, fee, beyond = zip(*rows, strict=True)
    return Filled(np.array(ended_ns, dtype=np.int64), np.array(usd), np.array(fee), np.array(beyond))
