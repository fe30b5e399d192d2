"""What the venue lists but options: two perpetuals and two dated futures a coin, named as Deribit names them.

Dated futures move by wider ticks above a price set at the money, so stepping is exercised.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from dea_daemon.domain.instruments import Instrument, Kind, Payoff, TickStep
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.simvenue.scenarios import Scenario

VENUE = "deribit"
_NOTICE_NS = 2 * NS_PER_DAY  # a future newly listed lives at least this long
_INVERSE_LOT = {"BTC": Decimal(10), "ETH": Decimal(1)}  # USD
_LINEAR_LOT = {"BTC": Decimal("0.0001"), "ETH": Decimal("0.001")}  # coins
_TICK = {"BTC": Decimal("0.5"), "ETH": Decimal("0.05")}
_WIDE_TICK = {"BTC": Decimal("2.5"), "ETH": Decimal("0.25")}


def initial_instruments(scenario: Scenario, start_ns: int) -> list[Instrument]:
    """Perpetuals and futures listed when the venue opens."""
    listed = []
    for coin in scenario.coins:
        listed += [_perpetual(scenario, coin, Payoff.INVERSE), _perpetual(scenario, coin, Payoff.LINEAR)]
    for coin in scenario.coins:
        near = start_ns + int(scenario.nearest_expiry_s * NS_PER_S)
        if scenario.nearest_expiry_s == 0.0:
            near = next_friday(start_ns + _NOTICE_NS)
        far = quarter_end(near + 7 * NS_PER_DAY)
        listed += [_future(scenario, coin, near), _future(scenario, coin, far)]
    return listed


def successor(scenario: Scenario, ended: Instrument, now_ns: int, taken: set[str]) -> Instrument:
    """The dated future listed in the place of one that ended: the next free Friday."""
    expiry_ns = next_friday(now_ns + _NOTICE_NS)
    while future_name(ended.underlying, expiry_ns) in taken:
        expiry_ns = next_friday(expiry_ns)
    return _future(scenario, ended.underlying, expiry_ns)


def next_friday(after_ns: int) -> int:
    """The first Friday 08:00 UTC strictly later, in ns."""
    day = datetime.fromtimestamp(after_ns // NS_PER_S, UTC).replace(hour=8, minute=0, second=0)
    while day.weekday() != 4 or _ns(day) <= after_ns:
        day += timedelta(days=1)
    return _ns(day)


def next_morning(after_ns: int) -> int:
    """The first 08:00 UTC strictly later, in ns."""
    day = datetime.fromtimestamp(after_ns // NS_PER_S, UTC).replace(hour=8, minute=0, second=0)
    return _ns(day) if _ns(day) > after_ns else _ns(day + timedelta(days=1))


def month_end(after_ns: int) -> int:
    """The first last Friday of a month, 08:00 UTC, strictly later, in ns."""
    friday = next_friday(after_ns)
    while True:
        here = datetime.fromtimestamp(friday // NS_PER_S, UTC)
        if (here + timedelta(days=7)).month != here.month:
            return friday
        friday = next_friday(friday)


def quarter_end(after_ns: int) -> int:
    """The first last Friday of March, June, September or December, 08:00 UTC, strictly later, in ns."""
    friday = month_end(after_ns)
    while datetime.fromtimestamp(friday // NS_PER_S, UTC).month % 3:
        friday = month_end(friday)
    return friday


def future_name(coin: str, expiry_ns: int) -> str:
    """As Deribit writes it: BTC-27MAR26, BTC-3APR26."""
    when = datetime.fromtimestamp(expiry_ns // NS_PER_S, UTC)
    return f"{coin}-{when.day}{when:%b%y}".upper()


def _ns(when: datetime) -> int:
    return int(when.timestamp()) * NS_PER_S


def _perpetual(scenario: Scenario, coin: str, payoff: Payoff) -> Instrument:
    inverse = payoff is Payoff.INVERSE
    return Instrument(
        venue=VENUE,
        name=f"{coin}-PERPETUAL" if inverse else f"{coin}_USDC-PERPETUAL",
        kind=Kind.PERPETUAL,
        payoff=payoff,
        underlying=coin,
        quote_currency="USD" if inverse else "USDC",
        settle_currency=coin if inverse else "USDC",
        margin_pool=coin if inverse else "USDC",
        contract_size=Decimal(1),
        lot_size=_INVERSE_LOT[coin] if inverse else _LINEAR_LOT[coin],
        tick_size=_TICK[coin],
        maker_fee=scenario.maker_fee,
        taker_fee=scenario.taker_fee,
    )


def _future(scenario: Scenario, coin: str, expiry_ns: int) -> Instrument:
    at_the_money = Decimal(round(scenario.coins[coin].start_price))
    return Instrument(
        venue=VENUE,
        name=future_name(coin, expiry_ns),
        kind=Kind.FUTURE,
        payoff=Payoff.INVERSE,
        underlying=coin,
        quote_currency="USD",
        settle_currency=coin,
        margin_pool=coin,
        contract_size=Decimal(1),
        lot_size=_INVERSE_LOT[coin],
        tick_size=_TICK[coin],
        tick_steps=(TickStep(above_price=at_the_money, tick_size=_WIDE_TICK[coin]),),
        maker_fee=scenario.maker_fee,
        taker_fee=scenario.taker_fee,
        expiry_ns=expiry_ns // NS_PER_MS * NS_PER_MS,
    )
