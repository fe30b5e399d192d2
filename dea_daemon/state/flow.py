"""Microstructure signals: what the order books, the quotes and the trades of the last minute say of the next one.

Order-flow imbalance follows Cont, Kukanov and Stoikov (2014, "The price impact of order book events"): an improved
price brings its whole amount, a worsened one takes the old amount away, an unchanged one the difference; bids count
up, asks down. Over several levels each rank is its own touch (Xu, Gould and Howison 2018). Sums decay with time on
the receipt clock, and so does the mean depth they are divided by, which is weighed by how long it stood.

Every change of a book is seen as it is folded, in plain floats: numpy costs more than all of this for one event. What
a tick asks is vectorised, and copies only the rows that changed since the last.
"""

from math import exp, expm1, inf, log
from typing import TYPE_CHECKING

import numpy as np

from dea_daemon.domain.decisions import Micro
from dea_daemon.domain.events import BookDelta, BookSnapshot, QuoteUpdated, TradePrinted
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray, Universe
from dea_daemon.domain.instruments import Side as TakerSide
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.domain.parameters import StateParameters
from dea_daemon.state.books import Book, Side
from dea_daemon.state.windows import NEVER, lengthened

if TYPE_CHECKING:
    from dea_daemon.state.market import Market

LEVELS = 5  # the best of each side that count
_NOWHERE = [-inf] * LEVELS  # keys of levels that are not there: worse than any price, with nothing in them
_NOTHING = (0.0,) * LEVELS


class Fading:
    """How fast sums fade: `rate` 1/ns, negative; no finer than every `grain_ns`."""

    __slots__ = ("grain_ns", "rate")

    def __init__(self, half_life_s: float) -> None:
        self.rate = -log(2.0) / (half_life_s * NS_PER_S)
        self.grain_ns = int(half_life_s * NS_PER_S / 64)


class Ladder:
    """The best levels of one side as they were last counted, best last; `keys` as in books.Side."""

    __slots__ = ("amounts", "keys", "total")

    def __init__(self) -> None:
        self.keys, self.amounts, self.total = _NOWHERE, _NOTHING, 0.0

    def read(self, side: Side) -> tuple[float, float]:
        """Take a book's side in: (flow at the best level, sum of the flows at all that count), in the venue's
        amounts, positive where the side became stronger."""
        keys, held, sign = side.keys[-LEVELS:], side.amounts, side.sign
        if len(keys) < LEVELS:
            missing = LEVELS - len(keys)
            amounts = _NOTHING[:missing] + tuple([held[sign * key] for key in keys])
            return self.count(_NOWHERE[:missing] + keys, amounts)
        e, d, c, b, a = keys  # by hand: this is the hot path
        return self.count(keys, (held[sign * e], held[sign * d], held[sign * c], held[sign * b], held[sign * a]))

    def count(self, keys: list[float], amounts: tuple[float, ...]) -> tuple[float, float]:
        """Likewise, of levels given: each rank by itself."""
        was, before, total = self.keys, self.amounts, self.total
        self.keys, self.amounts, self.total = keys, amounts, sum(amounts)
        if keys == was:
            return amounts[-1] - before[-1], self.total - total
        best = deep = 0.0
        for key, amount, key_was, amount_was in zip(keys, amounts, was, before):  # noqa: B905 - all are of LEVELS
            if key > key_was:
                best = amount
            elif key < key_was:
                best = -amount_was
            else:
                best = amount - amount_was
            deep += best  # the last is the best level's
        return best, deep


class Flow:
    """One row's decayed sums. Amounts are in the venue's unit; `since_ns` is when the book's began, NEVER: void.

    Sums fade once a grain (a sixty-fourth of a half-life), and what happens within one counts as at its end. `areas`
    are depth, the mean of the two sides', times the weight of the time it stood; of the best level and of all.
    """

    __slots__ = (
        "area_best",
        "area_deep",
        "asks",
        "at_ns",
        "bids",
        "flow_best",
        "flow_deep",
        "heard_ns",
        "since_ns",
        "trade_ns",
        "traded",
        "traded_signed",
        "until_ns",
        "weight",
    )

    def __init__(self) -> None:
        self.bids, self.asks = Ladder(), Ladder()
        self.void()

    def void(self) -> None:
        """The stream is gone: nothing of it may be carried over the hole."""
        self.begin(NEVER)
        self.traded_signed = self.traded = 0.0
        self.trade_ns = NEVER

    def begin(self, now_ns: int) -> None:
        """A first picture: it is where counting starts, and itself no flow."""
        self.flow_best = self.flow_deep = self.area_best = self.area_deep = self.weight = 0.0
        self.at_ns = self.until_ns = self.since_ns = self.heard_ns = now_ns

    def pass_time(self, now_ns: int, fading: Fading) -> None:
        """Sums fade; the depth that stands has its share of the mean."""
        gone = -0.5 * expm1(fading.rate * (now_ns - self.at_ns))
        kept = 1.0 - 2.0 * gone
        bids, asks = self.bids, self.asks
        self.flow_best *= kept
        self.flow_deep *= kept
        self.area_best = self.area_best * kept + (bids.amounts[-1] + asks.amounts[-1]) * gone
        self.area_deep = self.area_deep * kept + (bids.total + asks.total) * gone
        self.weight = self.weight * kept + 2.0 * gone
        self.at_ns, self.until_ns = now_ns, now_ns + fading.grain_ns

    def changed(self, book: Book, event: BookDelta | BookSnapshot, fading: Fading) -> bool:
        """A change of a book that was usable before; whether it reached the levels that count.

        A snapshot counts by its net change: nothing between it and the book it replaces is known.
        """
        bids, asks = self.bids, self.asks
        in_bids = in_asks = type(event) is BookSnapshot
        if not in_bids:
            edge = bids.keys[0]
            for price, _ in event.bids:
                if price >= edge:
                    in_bids = True
                    break
            edge = -asks.keys[0]
            for price, _ in event.asks:
                if price <= edge:
                    in_asks = True
                    break
            if not in_bids and not in_asks:
                return False
        if event.ts_recv_ns > self.until_ns:
            self.pass_time(event.ts_recv_ns, fading)
        if in_bids:
            best, deep = bids.read(book.bids)
            self.flow_best += best
            self.flow_deep += deep
        if in_asks:
            best, deep = asks.read(book.asks)
            self.flow_best -= best
            self.flow_deep -= deep
        return True

    def snapshot(self, book: Book, now_ns: int) -> None:
        """A book has become usable."""
        self.bids.read(book.bids)
        self.asks.read(book.asks)
        self.begin(now_ns)

    def quoted(self, event: QuoteUpdated, fading: Fading, stale_ns: int) -> None:
        """A quote, where there is no book: its one level. After a silence counting starts again, for a quote does not
        say what it follows."""
        now_ns = event.ts_recv_ns
        anew = now_ns - self.heard_ns > stale_ns
        if not anew and now_ns > self.until_ns:
            self.pass_time(now_ns, fading)
        bid, ask = _level(event.bid, event.bid_amount, 1.0), _level(event.ask, event.ask_amount, -1.0)
        self.flow_best += self.bids.count(*bid)[0] - self.asks.count(*ask)[0]
        self.heard_ns = now_ns
        if anew:
            self.begin(now_ns)

    def printed(self, event: TradePrinted, fading: Fading) -> None:
        """A public trade, signed by its taker."""
        amount = event.amount
        if not 0.0 < amount < inf:
            return
        if event.ts_recv_ns > self.trade_ns:
            kept = exp(fading.rate * (event.ts_recv_ns - self.trade_ns)) if self.traded else 0.0
            self.traded_signed *= kept
            self.traded *= kept
            self.trade_ns = event.ts_recv_ns
        self.traded += amount
        self.traded_signed += amount if event.side is TakerSide.BUY else -amount


def _level(price: float, amount: float, sign: float) -> tuple[list[float], tuple[float, ...]]:
    """A quote's side as a ladder of one; no price or no amount: an empty one."""
    if 0.0 < price < inf and 0.0 < amount < inf:
        return [*_NOWHERE[1:], sign * price], (*_NOTHING[1:], amount)
    return _NOWHERE, _NOTHING


class Flows:
    """Every row's flow, and what a tick asks of them; the only writer of Micro.

    `_sums` [N, 11] and `_at` [N, 3] are the rows as they last changed (`_copy`), so that a tick copies few.
    """

    def __init__(self, universe: Universe, params: StateParameters) -> None:
        self._rows: list[Flow] = []
        self._changed: set[int] = set()
        self._option: list[bool] = []
        self._lot_size = np.zeros(0)
        self._sums: FloatArray = np.zeros((0, 11))
        self._at: IntArray = np.zeros((0, 3), dtype=np.int64)
        self._mid, self._squares, self._days = (np.zeros(0) for _ in range(3))
        self._interest, self._watched = np.zeros(0), np.zeros(0)
        self._sampled_ns = NEVER
        self._believe(params)
        self.lengthen(universe)

    def lengthen(self, universe: Universe) -> None:
        """A place for each row of the universe."""
        n = len(universe)
        new = n - len(self._rows)
        self._rows += [Flow() for _ in range(new)]
        self._sums = np.vstack((self._sums, np.zeros((new, self._sums.shape[1]))))
        self._at = np.vstack((self._at, np.full((new, self._at.shape[1]), NEVER)))
        for name, value in (("_mid", np.nan), ("_squares", 0.0), ("_days", 0.0), ("_interest", 0.0), ("_watched", 0.0)):
            setattr(self, name, lengthened(getattr(self, name), n, value))
        self._option = universe.option.tolist()
        self._lot_size = np.array([float(i.lot_size) for i in universe.instruments], dtype=np.float64)

    # --- one message ---------------------------------------------------------------------------------

    def book(self, book: Book, event: BookDelta | BookSnapshot, was_usable: bool) -> None:
        """A book took this in. One that was not usable before begins anew: so nothing crosses a gap."""
        flow = self._rows[event.row]
        if not was_usable:
            flow.snapshot(book, event.ts_recv_ns)
        elif not flow.changed(book, event, self._fading):
            return
        self._changed.add(event.row)

    def quote(self, event: QuoteUpdated) -> None:
        """A quote of a row that has no book."""
        stale_ns = self._stale_option_ns if self._option[event.row] else self._stale_ns
        self._rows[event.row].quoted(event, self._fading, stale_ns)
        self._changed.add(event.row)

    def trade(self, event: TradePrinted) -> None:
        self._rows[event.row].printed(event, self._fading)
        self._changed.add(event.row)

    def closed(self, row: int) -> None:
        """Its feed is gone."""
        self._rows[row].void()
        self._changed.add(row)

    # --- one tick ------------------------------------------------------------------------------------

    def tell(
        self, market: "Market", now_ns: int, utc_ns: int, spot: FloatArray, forward: FloatArray, per_lot: FloatArray
    ) -> Micro:
        """The signals of this moment. `spot`, `forward` and the positive notional `per_lot` [N] in USD."""
        params = market.params.state
        self._believe(params)
        self._copy()
        quoted, marked = market.heard(now_ns)
        with np.errstate(all="ignore"):
            known = quoted & ~(np.isnan(market.bid) & np.isnan(market.ask))
            two_sided = known & (market.bid > 0.0) & (market.ask > market.bid)
            mid = np.where(two_sided, 0.5 * (market.bid + market.ask), np.nan)
            interest = np.where(marked, market.open_interest, np.nan)
            self._sample(mid, interest, now_ns, params)
            found = self._flows(market, mid, known, now_ns, per_lot / self._lot_size)
            micro = Micro(
                **found,
                realised_variance=np.where(two_sided & (self._days > 0.0), self._squares / self._days, np.nan),
                basis_annual=_basis(market.universe, marked, utc_ns, spot, forward),
                premium=_premium(market, marked, spot),
                funding_rate_8h=np.where(marked, market.funding_8h, np.nan),
                open_interest_usd=interest * per_lot / self._lot_size,
                open_interest_change=np.where(
                    self._watched >= 0.5, interest * self._watched / self._interest - 1.0, np.nan
                ),
            )
        for array in micro:
            array.setflags(write=False)
        return micro

    def _believe(self, params: StateParameters) -> None:
        self._fading = Fading(params.flow_half_life_s)
        self._stale_ns, self._stale_option_ns = params.stale_book_ms * NS_PER_MS, params.stale_option_ms * NS_PER_MS

    def _copy(self) -> None:
        for row in self._changed:
            f = self._rows[row]
            bids, asks = f.bids, f.asks
            self._sums[row] = (
                *(bids.amounts[-1], asks.amounts[-1], bids.total, asks.total),
                *(f.flow_best, f.flow_deep, f.area_best, f.area_deep, f.weight, f.traded_signed, f.traded),
            )
            self._at[row] = f.at_ns, f.since_ns, f.trade_ns
        self._changed.clear()

    def _flows(
        self, market: "Market", mid: FloatArray, known: BoolArray, now_ns: int, usd: FloatArray
    ) -> dict[str, FloatArray]:
        """What rests on amounts; `usd` [N] is one unit's worth."""
        bid_amount, ask_amount, bids, asks, best, deep, area_best, area_deep, weight, signed, traded = self._sums.T
        age_ns = now_ns - self._at
        gone = -np.expm1(self._fading.rate * age_ns[:, 0])
        kept = 1.0 - gone
        weight = weight * kept + gone
        at_best, at_all = 0.5 * (bid_amount + ask_amount), 0.5 * (bids + asks)
        mean_best = np.where(weight > 0.0, (area_best * kept + at_best * gone) / weight, at_best)
        mean_all = np.where(weight > 0.0, (area_deep * kept + at_all * gone) / weight, at_all)
        weighted = (market.bid * ask_amount + market.ask * bid_amount) / (bid_amount + ask_amount)
        levels = known & market.has_book
        return {
            "microprice": np.where(mid == mid, weighted, np.nan),
            "spread_bp": (market.ask - market.bid) / mid * 1e4,
            "depth_bid_usd": np.where(known, bids * usd, np.nan),
            "depth_ask_usd": np.where(known, asks * usd, np.nan),
            "ofi": np.where(known & (mean_best > 0.0), best * kept / mean_best, np.nan),
            "ofi_deep": np.where(levels & (mean_all > 0.0), deep * kept / mean_all, np.nan),
            "flow_age_s": np.where(known, age_ns[:, 1] / NS_PER_S, np.nan),
            "trade_imbalance": np.where(
                traded > 0.0, signed / traded * np.exp(self._fading.rate * age_ns[:, 2]), np.nan
            ),
        }

    def _sample(self, mid: FloatArray, interest: FloatArray, now_ns: int, params: StateParameters) -> None:
        """On its grid: squared returns of the mid, and open interest's mean. An unknown mid ends what was summed."""
        elapsed_ns = now_ns - self._sampled_ns
        if elapsed_ns < params.variance_every_s * NS_PER_S:
            return
        first, self._sampled_ns = self._sampled_ns == NEVER, now_ns
        move = np.log(mid / self._mid)
        self._mid = mid
        if first:
            return
        days = elapsed_ns / NS_PER_DAY
        kept = np.exp(self._fading.rate * elapsed_ns)
        moved = move == move
        self._squares = np.where(moved, self._squares * kept + move * move, 0.0)
        self._days = np.where(moved, self._days * kept + days, 0.0)
        kept, seen = np.exp(-days), interest == interest
        self._interest = self._interest * kept + np.where(seen, interest, 0.0) * (1.0 - kept)
        self._watched = self._watched * kept + seen * (1.0 - kept)


def _basis(universe: Universe, marked: BoolArray, utc_ns: int, spot: FloatArray, forward: FloatArray) -> FloatArray:
    """[N] 1/year, log(forward / index) over the time left, of contracts with more than a day of it: in the last, one
    basis point is 3.65 % a year and more."""
    left = (universe.expiry_ns - utc_ns) / NS_PER_DAY
    basis = np.log(forward / spot) * DAYS_PER_YEAR / left
    return np.where(marked & (left > 1.0) & np.isfinite(basis), basis, np.nan)


def _premium(market: "Market", marked: BoolArray, spot: FloatArray) -> FloatArray:
    """[N] mark over index, less one, of perpetuals; over the underlying's price where the row is told no index."""
    universe = market.universe
    perpetual = (universe.expiry_ns == 0) & ~universe.spot
    index = np.where(market.index == market.index, market.index, spot)
    return np.where(marked & perpetual, market.mark / index - 1.0, np.nan)
