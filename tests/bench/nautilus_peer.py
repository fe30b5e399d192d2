"""NautilusTrader on the bars of `tests.bench.bars`, in an interpreter that has it: prints CPU seconds, as JSON.

`PYTHON nautilus_peer.py BARS.npy DECIDE_EVERY_MINUTES`. Imports nothing of ours: it is run by another Python. What it
trades is what ours does: inverse-volatility weights scaled to 20 % a year, by hourly returns, a no-trade band, orders
that take, their fees. It keeps no record of its decisions, and has no limits of a portfolio.
"""

# Its library is not among our dependencies.
# mypy: ignore-errors

import json
import math
import sys
import time
from decimal import Decimal

import numpy as np
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import BTC, ETH, USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("BINANCE")
CAPITAL_USD, ANNUAL_VOL, MAX_LEVERAGE, BAND, MIN_BAND_USD = 1_000_000, 0.20, 3.0, 0.1, 100.0
HALF_LIFE_HOURS, PRIOR_SAMPLES, PRIOR_VOL = 24.0, 24.0, 0.6
HOURS_A_YEAR = 24 * 365
KEEP = 0.5 ** (1.0 / HALF_LIFE_HOURS)


def perpetual(base, price_digits):
    """As Binance lists it, with the fees of the backtest's settings."""
    name = f"{base.code}USDT"
    return CryptoPerpetual(
        instrument_id=InstrumentId(Symbol(f"{name}-PERP"), VENUE),
        raw_symbol=Symbol(name),
        base_currency=base,
        quote_currency=USDT,
        settlement_currency=USDT,
        is_inverse=False,
        price_precision=price_digits,
        size_precision=3,
        price_increment=Price(10.0**-price_digits, price_digits),
        size_increment=Quantity(0.001, 3),
        max_quantity=None,
        min_quantity=Quantity(0.001, 3),
        max_notional=None,
        min_notional=None,
        max_price=None,
        min_price=None,
        margin_init=Decimal("0.05"),
        margin_maint=Decimal("0.025"),
        maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0005"),
        ts_event=0,
        ts_init=0,
    )


class TargetExposure(Strategy):
    """Volatility targeting of all `instruments` together, in plain floats: for so few arrays would be slower."""

    def __init__(self, instruments, bar_types, decide_every):
        super().__init__()
        self.instruments, self.bar_types, self.decide_every = instruments, bar_types, decide_every
        n = len(instruments)
        self.place = {bar_type: k for k, bar_type in enumerate(bar_types)}
        self.price, self.sampled = [math.nan] * n, [math.nan] * n
        self.heard = self.bars = self.decisions = 0
        self.weight = PRIOR_SAMPLES
        prior = PRIOR_VOL**2 / HOURS_A_YEAR
        self.sums = [[PRIOR_SAMPLES * prior * (i == j) for j in range(n)] for i in range(n)]

    def on_start(self):
        for bar_type in self.bar_types:
            self.subscribe_bars(bar_type)

    def on_bar(self, bar):
        self.price[self.place[bar.bar_type]] = bar.close.as_double()
        self.heard += 1
        if self.heard < len(self.price):
            return
        self.heard, self.bars = 0, self.bars + 1
        if self.bars % 60 == 0:
            self.sample()
        if self.bars % self.decide_every == 0:
            self.decide()

    def sample(self):
        """Exponentially weighted covariance of hourly returns."""
        n = range(len(self.price))
        returns = [math.log(self.price[i] / self.sampled[i]) for i in n]
        self.sampled = list(self.price)
        if not all(map(math.isfinite, returns)):
            return
        self.weight = self.weight * KEEP + 1.0
        self.sums = [[self.sums[i][j] * KEEP + returns[i] * returns[j] for j in n] for i in n]

    def decide(self):
        self.decisions += 1
        n = range(len(self.price))
        vol = [math.sqrt(self.sums[i][i] / self.weight * HOURS_A_YEAR) for i in n]
        shape = [1.0 / v for v in vol]
        variance = sum(shape[i] * shape[j] * self.sums[i][j] for i in n for j in n) / self.weight * HOURS_A_YEAR
        equity = self.portfolio.account(VENUE).balance_total(USDT).as_double()
        equity += sum(pnl.as_double() for pnl in self.portfolio.unrealized_pnls(VENUE).values())
        scale = min(ANNUAL_VOL * equity / math.sqrt(variance), MAX_LEVERAGE * equity / sum(shape))
        for i in n:
            self.trade(self.instruments[i], self.price[i], shape[i] * scale)

    def trade(self, instrument, price, wanted_usd):
        """To the band's inner edge, half of its width, where it is left."""
        band = max(BAND * abs(wanted_usd), MIN_BAND_USD)
        distance = wanted_usd - float(self.portfolio.net_position(instrument.id)) * price
        if abs(distance) <= band:
            return
        quantity = (abs(distance) - 0.5 * band) / price
        side = OrderSide.BUY if distance > 0.0 else OrderSide.SELL
        self.submit_order(self.order_factory.market(instrument.id, side, instrument.make_qty(quantity)))


def bars_of(instrument, bar_type, columns):
    """`columns` [T, 6]: close_ns, open, high, low, close, volume."""
    frame = pd.DataFrame(columns[:, 1:], columns=["open", "high", "low", "close", "volume"])
    frame.index = pd.to_datetime(columns[:, 0].astype(np.int64), utc=True)
    return BarDataWrangler(bar_type, instrument).process(frame)


def once(markets, decide_every):
    """CPU seconds of one run; its orders and decisions."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=None,
        starting_balances=[Money(CAPITAL_USD, USDT)],
    )
    for instrument, _, bars in markets:
        engine.add_instrument(instrument)
        engine.add_data(bars)
    strategy = TargetExposure([m[0] for m in markets], [m[1] for m in markets], decide_every)
    engine.add_strategy(strategy)
    began_s = time.process_time()
    engine.run()
    seconds = time.process_time() - began_s
    orders = engine.cache.orders_total_count()
    engine.dispose()
    return seconds, orders, strategy.decisions


def main(path, decide_every):
    told, markets = np.load(path), []
    for columns, base, digits in zip(told, (BTC, ETH), (1, 2)):  # noqa: B905 - one contract may be all there is
        instrument = perpetual(base, digits)
        bar_type = BarType.from_str(f"{instrument.id}-1-MINUTE-LAST-EXTERNAL")
        markets.append((instrument, bar_type, bars_of(instrument, bar_type, columns)))
    seconds, orders, decisions = once(markets, decide_every)
    print(json.dumps({"seconds": seconds, "orders": orders, "decisions": decisions, "bars": told.shape[1]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
