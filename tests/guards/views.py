"""Views made by hand, for guards: four contracts, any positions, any orders."""

import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.instruments import AccountKey, Universe
from dea_daemon.domain.modes import Mode
from dea_daemon.pricing.exposure import Marks, exposure_per_lot, notional_per_lot
from tests.house import INSTRUMENTS, START_NS

UNIVERSE = Universe((AccountKey("deribit", "main"),), tuple((0, i) for i in INSTRUMENTS))
FACTORS = FactorIndex(UNIVERSE.underlyings)
MARK = np.array([80_000.0, 80_000.0, 80_000.0, 3_000.0])


def view(
    position=(0, 0, 0, 0),
    buys=(0, 0, 0, 0),
    sells=(0, 0, 0, 0),
    base=(0.0, 0.0),
    mark=MARK,
    equity_usd=1e6,
    **changes,
) -> View:
    n = len(UNIVERSE)
    mark = np.asarray(mark, dtype=np.float64)
    lots = np.array(position, dtype=np.int64)
    spot = np.array([80_000.0, 3_000.0])[UNIVERSE.underlying]
    none = np.zeros(n)
    in_usdc = np.array([i.settle_currency == "USDC" for i in UNIVERSE.instruments])
    settle = np.where(in_usdc, 1.0, spot)
    marks = Marks(mark, spot, mark, settle, none, none, np.ones(n), none, none, none, none, none)
    x = exposure_per_lot(UNIVERSE, FACTORS, marks)
    base_usd = np.zeros(len(FACTORS))
    base_usd[:2] = base
    held = np.flatnonzero(lots)
    fields = dict(
        seq=1, now_ns=START_NS, utc_ns=START_NS, universe=UNIVERSE, factors=FACTORS,
        bid_price=mark - 1, ask_price=mark + 1,
        mark_price=mark, index_price=mark.copy(), funding_rate_8h=np.zeros(n), fresh=np.ones(n, dtype=bool),
        underlying_price=np.array([80_000.0, 3_000.0]), position_lots=lots,
        working_buy_lots=np.array(buys, dtype=np.int64), working_sell_lots=np.array(sells, dtype=np.int64),
        quarantined=np.zeros(n, dtype=bool), notional_per_lot_usd=notional_per_lot(UNIVERSE, mark, spot),
        forward_price=mark.copy(), iv=np.full(n, np.nan), iv_source=np.zeros(n, dtype=np.int64),
        modelled=np.zeros(n, dtype=bool), greeks_off=np.zeros(n, dtype=bool), pinned=np.zeros(n, dtype=bool),
        delta_per_lot=x[UNIVERSE.underlying, np.arange(n)], delivered_since_ms=(0,), relist=(),
        exposure_per_lot=x, exposure_base_usd=base_usd, exposure_usd=x[:, held] @ lots[held] + base_usd,
        equity_usd=equity_usd, peak_equity_usd=equity_usd, turnover_hour_usd=0.0, fees_hour_usd=0.0,
        creates_last_minute=0, clock_step_ns=0, mode=Mode.NORMAL, armed=True, draining=False, ready=True,
        account_fresh=True, recording=True, outside=(), orders=(), epoch=1, sequence=0, trade_cursor_ms=0,
        account_asked_ns=(0,), account_agreed=(True,), traded_accounts=(0,), paused=np.zeros(n, dtype=bool),
        post_only_rejects=np.zeros(n, dtype=np.int64),
    )  # fmt: skip
    return View(**(fields | changes))
