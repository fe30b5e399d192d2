"""The public methods. Each is a function of a Call; `METHODS` is the table."""

from collections.abc import Callable

from dea_daemon.domain.instruments import Kind
from dea_daemon.domain.numbers import NS_PER_S, ms_to_ns
from dea_daemon.simvenue.deribit import encodings
from dea_daemon.simvenue.deribit.call import Call, Method
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.encodings import ms
from dea_daemon.simvenue.deribit.errors import invalid
from dea_daemon.simvenue.deribit.session import Json

VERSION = "1.2.26"
DEPTHS = (1, 5, 10, 20, 50, 100, 1000, 10000)
RESOLUTIONS_S = {
    **{str(minutes): 60 * minutes for minutes in (1, 3, 5, 10, 15, 30, 60, 120, 180, 360, 720)},
    "1D": 86_400,
}
CANDLES_MAX = 5_000
EXPIRED_MAX = 1_000  # the latest ones
_NAMES = {"BTC": "Bitcoin", "ETH": "Ethereum", "USDC": "USD Coin"}


def get_time(call: Call) -> Json:
    return ms(call.now_ns)


def test(call: Call) -> Json:
    return {"version": VERSION}


def status(call: Call) -> Json:
    """Whether trading is locked: "true" of all indices, "partial" of some."""
    exchange, market = call.exchange, call.market
    indices = [name for coin in sorted(exchange.locked) for name in market.indices(coin)]
    return {"locked": "true" if exchange.maintenance else "partial" if indices else "false", "locked_indices": indices}


def get_currencies(call: Call) -> Json:
    return [
        {
            "currency": currency,
            "currency_long": _NAMES.get(currency, currency),
            "coin_type": "BITCOIN" if currency == "BTC" else "ETHER",
            "min_confirmations": 1,
            "min_withdrawal_fee": 0.0,
            "withdrawal_fee": 0.0,
            "fee_precision": 4,
            "in_cross_collateral_pool": False,
            "withdrawal_priorities": [],
        }
        for currency in call.exchange.currencies()
    ]


def _contracts(call: Call, currency: str) -> list[Contract]:
    """Live contracts of the asked kind that settle in a currency."""
    return [call.market.contracts[name] for name in filter(call.of_kind(currency), call.exchange.instruments)]


def get_instruments(call: Call) -> Json:
    currency, market = call.currency("any"), call.market
    if not call.params.flag("expired"):
        return [encodings.instrument(c, True) for c in _contracts(call, currency)]
    ended = [c for c in market.contracts.values() if not market.lists(c)]
    wanted = call.of_kind(currency)
    return [encodings.instrument(c, False) for c in ended[-EXPIRED_MAX:] if wanted(c.instrument.name)]


def get_instrument(call: Call) -> Json:
    """An expired one too."""
    name = call.params.text("instrument_name")
    if name not in call.market.contracts:
        raise invalid("instrument_name", "instrument not found")
    contract = call.market.contracts[name]
    return encodings.instrument(contract, call.market.lists(contract))


def ticker(call: Call) -> Json:
    contract = call.contract()
    return call.market.ticker(contract, call.exchange.ticker(contract.instrument.name))


def get_order_book(call: Call) -> Json:
    depth = call.params.integer("depth", 5)
    if depth not in DEPTHS:
        depth = next((allowed for allowed in DEPTHS if allowed >= depth), DEPTHS[-1])
    contract = call.contract()
    book = call.exchange.book(contract.instrument.name, depth)
    return ticker(call) | {
        "timestamp": ms(book.ts_ns),
        "change_id": book.change_id,
        "bids": encodings.levels(contract, book.bids),
        "asks": encodings.levels(contract, book.asks),
    }


def get_book_summary_by_currency(call: Call) -> Json:
    return [call.market.book_summary(c) for c in _contracts(call, call.currency(any_allowed=False))]


def get_book_summary_by_instrument(call: Call) -> Json:
    return [call.market.book_summary(call.contract())]


def get_index_price_names(call: Call) -> Json:
    return list(call.market.index_names())


def get_index_price(call: Call) -> Json:
    names = call.market.index_names()
    name = call.params.text("index_name")
    if name not in names:
        raise invalid("index_name", "invalid index name")
    price = call.exchange.index_price(names[name])
    return {"index_price": price, "estimated_delivery_price": price}


def window_ns(call: Call, *, required: bool = True) -> tuple[int, int]:
    """start_timestamp and end_timestamp (ms) as ns, both included."""
    default = None if required else 0
    start, end = call.params.integer("start_timestamp", default), call.params.integer("end_timestamp", default)
    return ms_to_ns(start), ms_to_ns(end + 1) - 1 if end else call.now_ns


def get_last_trades_by_instrument(call: Call) -> Json:
    """Newest first, unless a start is given; `count` of them."""
    contract = call.contract()
    count = call.params.integer("count", 10, at_most=1_000)
    start, end = window_ns(call, required=False)
    rows = [t for t in call.exchange.trades(contract.instrument.name, 1_000) if start <= t.ts_ns <= end]
    sorting = call.params.text("sorting", "default", one_of=("asc", "desc", "default"))
    oldest_first = sorting == "asc" or (sorting == "default" and call.params.has("start_timestamp"))
    rows = rows if oldest_first else rows[::-1]
    return {"trades": [call.market.trade(t) for t in rows[:count]], "has_more": len(rows) > count}


def get_tradingview_chart_data(call: Call) -> Json:
    contract = call.contract()
    resolution = call.params.text("resolution", one_of=tuple(RESOLUTIONS_S))
    step_s = RESOLUTIONS_S[resolution]
    start, end = window_ns(call)
    start = max(start, end - CANDLES_MAX * step_s * NS_PER_S)
    rows = call.exchange.candles(contract.instrument.name, start, end, step_s)
    ticks, opened, high, low, close, amounts = zip(*rows, strict=True) if rows else ((),) * 6
    traded = [contract.near_amount(amount) for amount in amounts]
    coins = [contract.coins(amount, price) for amount, price in zip(traded, close, strict=True)]
    dollars = [amount * (1.0 if contract.inverse else price) for amount, price in zip(traded, close, strict=True)]
    prices = {"open": opened, "high": high, "low": low, "close": close}
    return {
        "status": "ok" if rows else "no_data",
        "ticks": [ms(tick) for tick in ticks],
        **{name: [contract.near_price(price) for price in column] for name, column in prices.items()},
        "volume": coins,
        "cost": dollars,
    }


def _perpetual(call: Call) -> str:
    contract = call.contract()
    if contract.instrument.kind is not Kind.PERPETUAL:
        raise invalid("instrument_name", "wrong instrument kind")
    return contract.instrument.name


def get_funding_rate_value(call: Call) -> Json:
    """The rate paid over the window; where no hour of it has ended yet, the current one."""
    name = _perpetual(call)
    history = call.exchange.funding_history(name, *window_ns(call))
    return sum(row[2] for row in history) if history else call.exchange.ticker(name).funding_rate_8h


def get_funding_rate_history(call: Call) -> Json:
    rows = call.exchange.funding_history(_perpetual(call), *window_ns(call))
    return [
        {
            "timestamp": ms(ts_ns),
            "index_price": index,
            "prev_index_price": rows[max(n - 1, 0)][1],
            "interest_1h": rate_1h,
            "interest_8h": rate_8h,
        }
        for n, (ts_ns, index, rate_1h, rate_8h) in enumerate(rows)
    ]


_FUNCTIONS: tuple[Callable[[Call], Json], ...] = (
    get_time, status, get_currencies, get_instruments, get_instrument, ticker, get_order_book,
    get_book_summary_by_currency, get_book_summary_by_instrument, get_index_price, get_index_price_names,
    get_last_trades_by_instrument, get_tradingview_chart_data, get_funding_rate_value, get_funding_rate_history,
)  # fmt: skip
METHODS = {f"public/{function.__name__}": Method(function) for function in _FUNCTIONS}
METHODS["public/get_last_trades_by_instrument_and_time"] = Method(get_last_trades_by_instrument)
