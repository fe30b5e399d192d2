"""What a run is told of the ones before it, from the ledger to the core."""

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dea_daemon.engine import begin
from dea_daemon.execution.shortfall import Shortfall
from dea_daemon.shell.clock import Clock
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.settings import load
from dea_daemon.wiring.demo import config_file
from dea_daemon.wiring.live import _started
from tests.shell.ledger_samples import NOW, UNIVERSE, order


def measured(number: int) -> dict[str, Any]:
    """A crossing order that cost 8 bp beyond fee and half spread."""
    return dict.fromkeys(Shortfall.__struct_fields__, float("nan")) | {
        "client_order_id": f"d0000007{number:08}", "account": "deribit/main", "instrument": "BTC-PERPETUAL",
        "underlying": "BTC", "side": "buy", "placed": "cross", "decided_ns": NOW, "sent_ns": NOW, "ended_ns": NOW,
        "lots": 10, "filled_lots": 10, "asked_usd": 8e3, "filled_usd": 8e3, "beyond_usd": 6.4, "day_vol_bp": 300.0,
    }  # fmt: skip


def test_the_core_of_the_next_run_knows_what_the_orders_of_the_last_taught(tmp_path: Path) -> None:
    settings = load(config_file("backtest-voltarget.yaml"))
    venues: Any = SimpleNamespace(universe=UNIVERSE, currencies=())
    with closing(Ledger.open(tmp_path / "ledger.sqlite")) as ledger:
        ledger.next_epoch()
        ledger.start_run("first", NOW, "{}")
        ledger.write(Batch(intents=[order(1)], measured=[measured(n) for n in range(100)]), UNIVERSE, NOW)
        started = _started(settings, venues, ledger, Clock(), "second", 8)
    state, _ = begin(started)
    (known,) = state.memory.costs.estimates.by_key.values()
    assert known.orders == 100 and known.bp == pytest.approx(8.0, rel=0.5) and known.told_bp > 0.0
