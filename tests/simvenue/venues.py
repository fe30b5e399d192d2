"""Builders the simvenue tests share: small recorded venues and running synthetic ones."""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal

from dea_daemon.domain.instruments import Instrument, Kind, Payoff, Side
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.scenarios import Scenario, load
from dea_daemon.simvenue.words import OrderRequest, VenueFill, VenueOrder

BUY, SELL = Side.BUY, Side.SELL
S, MS = 1_000_000_000, 1_000_000
START_NS = 1_772_000_000 * S  # Wednesday, 25 February 2026, 06:13:20 UTC
INVERSE, LINEAR = "BTC-PERPETUAL", "BTCUSDT"
DEPOSITS = {"BTC": 10.0, "ETH": 100.0, "USDC": 1_000_000.0, "USDT": 1_000_000.0}


def contract(name: str, payoff: Payoff, pool: str, lot: str, tick: str, expiry_ns: int = 0) -> Instrument:
    return Instrument(
        venue="test",
        name=name,
        kind=Kind.FUTURE if expiry_ns else Kind.PERPETUAL,
        payoff=payoff,
        underlying="BTC",
        quote_currency="USD" if payoff is Payoff.INVERSE else pool,
        settle_currency=pool,
        margin_pool=pool,
        contract_size=Decimal(1),
        lot_size=Decimal(lot),
        tick_size=Decimal(tick),
        taker_fee=0.0005,
        maker_fee=0.0001,
        expiry_ns=expiry_ns,
    )


def recorded_venue(scenario: Scenario | None = None, *accounts: str, deposits: dict[str, float] = DEPOSITS) -> Exchange:
    """An inverse and a linear contract with marks at 1,000 and an empty book; price ticks are 1."""
    venue = Exchange.replayed(
        [contract(INVERSE, Payoff.INVERSE, "BTC", "10", "1"), contract(LINEAR, Payoff.LINEAR, "USDT", "0.1", "1")],
        START_NS,
        scenario,
    )
    for name in accounts or ("a", "b"):
        venue.open_account(name, dict(deposits))
    for name in (INVERSE, LINEAR):
        venue.set_mark(name, 1_000.0, 1_000.0)
    return venue


def running_venue(scenario: str | Scenario = "default", seed: int = 7, **changes: object) -> Exchange:
    """A synthetic venue with accounts "a" and "b"."""
    chosen = load(scenario) if isinstance(scenario, str) else scenario
    venue = Exchange(replace(chosen, **changes), seed, START_NS)  # type: ignore[arg-type]
    for name in ("a", "b"):
        venue.open_account(name, dict(DEPOSITS))
    return venue


def order(
    venue: Exchange,
    side: Side,
    lots: int,
    price_ticks: int | None,
    account: str = "a",
    instrument: str = INVERSE,
    **other: object,
) -> tuple[VenueOrder, list[VenueFill]]:
    """Place an order."""
    return venue.place(OrderRequest(account, instrument, side, lots, price_ticks, **other))  # type: ignore[arg-type]


def totals(venue: Exchange) -> dict[str, float]:
    """By pool: cash, unrealised profit and accrued funding of everyone, the house's accounts too."""
    sums: dict[str, float] = defaultdict(float)
    for account in venue.accounts.by_name.values():
        for pool in {*account.cash, *venue.currencies()}:
            sums[pool] += venue.accounts.equity(account, pool)
    return dict(sums)


def open_lots(venue: Exchange, instrument: str) -> int:
    """The sum of everyone's positions in a contract: always 0."""
    return sum(account.lots(instrument) for account in venue.accounts.by_name.values())
