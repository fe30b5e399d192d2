"""Which options are listed: expiries by Deribit's calendar, ladders of strikes around the index, names.

A chain is one coin's options in one settlement currency. Coin-settled ones move by 0.0001 coin, and by 0.0005
above 0.005.
"""

from decimal import Decimal
from itertools import chain, repeat
from math import log10, sqrt

from dea_daemon.domain.instruments import Instrument, Kind, Payoff, TickStep
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.simvenue.listing import VENUE, future_name, month_end, next_friday, next_morning, quarter_end
from dea_daemon.simvenue.scenarios import Scenario

_NOTICE_NS = NS_PER_DAY // 2  # a daily expiry newly listed lives at least this long
_COIN_LOT = {"BTC": Decimal("0.1"), "ETH": Decimal(1)}  # coins
_USDC_LOT = Decimal("0.01")
_COIN_TICK = Decimal("0.0001")
_COIN_STEPS = (TickStep(above_price=Decimal("0.005"), tick_size=Decimal("0.0005")),)
_USDC_TICK = Decimal(5)
_STEP_PER_SD = 0.35  # distance of strikes in standard deviations of the life to come
_STEP_MAX = 0.1  # and as a share of the price, so that the lowest strike stays well above nothing


def chains(scenario: Scenario) -> list[tuple[str, str]]:
    """(coin, settlement currency) of each chain."""
    if not scenario.options:
        return []
    usdc = [coin for coin in scenario.option_usdc_coins if coin in scenario.coins]
    return [(coin, coin) for coin in scenario.coins] + [(coin, "USDC") for coin in usdc]


def calendar(after_ns: int, count: int) -> list[int]:
    """The first `count` of: next morning, the Friday after, its month's or the next month's last, quarter ends."""
    expiries: list[int] = []
    last = after_ns + _NOTICE_NS
    for following in chain((next_morning, next_friday, month_end), repeat(quarter_end, max(count - 3, 0))):
        last = following(last)
        expiries.append(last)
    return expiries[:count]


def initial_expiries(scenario: Scenario, start_ns: int) -> list[int]:
    """When the venue opens: the calendar's, with the scenario's own nearest one in place of the first."""
    near_s, count = scenario.nearest_expiry_s, scenario.option_expiries
    if near_s == 0.0:
        return calendar(start_ns, count)
    near_ns = start_ns + int(near_s * NS_PER_S)
    return [near_ns, *calendar(near_ns, count)[1:]][:count]


def strike_step(scenario: Scenario, coin: str, life_ns: int, index: float) -> int:
    """USD between strikes: 1, 2.5 or 5 times a power of ten, by how far the index may go; at least 1."""
    days = max(life_ns / NS_PER_DAY, 1.0)
    sd = scenario.coins[coin].annual_vol * sqrt(days / DAYS_PER_YEAR)
    wanted = max(min(_STEP_PER_SD * sd, _STEP_MAX) * index, 1.0)
    power = 10.0 ** int(log10(wanted))
    return int(max(nice * power for nice in (1.0, 2.5, 5.0) if nice * power <= wanted))


def ladder(index: float, step: int, count: int) -> list[int]:
    """`count` strikes around the index, positive."""
    lowest = max(round(index / step) - count // 2, 1)
    return [step * k for k in range(lowest, lowest + count)]


def option(scenario: Scenario, coin: str, settles: str, expiry_ns: int, strike: int, is_call: bool) -> Instrument:
    """One contract; settles is the coin itself, or USDC."""
    in_coin = settles == coin
    prefix = coin if in_coin else f"{coin}_{settles}"
    return Instrument(
        venue=VENUE,
        name=f"{future_name(prefix, expiry_ns)}-{strike}-{'C' if is_call else 'P'}",
        kind=Kind.OPTION,
        payoff=Payoff.LINEAR,
        underlying=coin,
        quote_currency=settles,
        settle_currency=settles,
        margin_pool=settles,
        contract_size=Decimal(1),
        lot_size=_COIN_LOT[coin] if in_coin else _USDC_LOT,
        tick_size=_COIN_TICK if in_coin else _USDC_TICK,
        tick_steps=_COIN_STEPS if in_coin else (),
        maker_fee=scenario.option_fee,
        taker_fee=scenario.option_fee,
        expiry_ns=expiry_ns // NS_PER_MS * NS_PER_MS,
        strike=float(strike),
        is_call=is_call,
        fee_cap=scenario.option_fee_cap,
    )
