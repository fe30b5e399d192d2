"""What is wrong with a series, and what of it can be mended in a way that can be said.

Gaps stay gaps: nothing here ever fills one in. What a finding calls `fatal` would make a backtest over it a lie.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.research.candles import Candles, Finding, FundingRates

HOUR_NS = 3_600 * NS_PER_S
JUMP_MAX = 0.5  # of a price within one candle, or from one to the next: happened, but look
JUMP_ABSURD = 9.0  # tenfold: a slipped decimal point, not a market
GAPS_MAX = 0.2  # share of the span: above it the series is more hole than history
QUIET_RUN = 24  # candles in a row without volume
STALE_RUN = 12  # candles in a row that repeat one price
ROUNDING = 1e-9  # relative: a venue's decimals as floats
FUNDING_ABSURD = 0.03
FUNDING_MEDIAN_MAX = 0.005  # half a percent every time: surely told in percent
JITTER_NS = NS_PER_S  # a settlement is stamped some milliseconds late
_SUNDAY = 3  # days since 1970-01-01, a Thursday, modulo 7


class Run(NamedTuple):
    """The longest stretch of a condition."""

    first: int
    length: int


# --- candles ------------------------------------------------------------------------------------------------


def findings(candles: Candles) -> list[Finding]:
    """All that is wrong with candles as they were read: in any order, with any numbers. Empty where nothing is."""
    if not candles.open_ns.size:
        return [Finding("empty", 1, 0, "no candles at all", fatal=True)]
    ordered, mended = _in_order(candles)
    found = [*mended, *_of_times(ordered), *_of_prices(ordered)]
    return sorted(found, key=lambda finding: not finding.fatal)


def cleaned(candles: Candles, drop_bad: bool = False) -> tuple[Candles, list[Finding]]:
    """Sorted, exact duplicates dropped, a volume that is no number 0; and what was done.

    With `drop_bad`, of two candles that contradict each other the later row is kept, and candles whose prices are
    none become gaps. Without it they stay, for `findings` to tell.
    """
    candles, done = _in_order(candles)
    unknown = ~np.isfinite(candles.volume) | (candles.volume < 0.0)
    if unknown.any():
        done.append(_finding("volume", unknown, candles.open_ns, "volumes that are none are taken as 0"))
        candles = candles._replace(volume=np.where(unknown, 0.0, candles.volume))
    if not drop_bad:
        return candles, done
    last = np.append(np.diff(candles.open_ns) > 0, True)[: candles.open_ns.size]
    bad = ~last | _no_number(candles) | _no_price(candles) | _outside(candles)
    if bad.any():
        done = [finding for finding in done if not finding.fatal]
        done.append(_finding("dropped", bad, candles.open_ns, "bad candles left out: they are gaps now"))
        candles = _kept(candles, ~bad)
    return candles, done


def missing(candles: Candles) -> int:
    """How many candles lack between the first and the last."""
    if not candles.open_ns.size:
        return 0
    span = int(candles.open_ns.max() - candles.open_ns.min()) // candles.step_ns + 1
    return max(0, span - int(np.unique(candles.open_ns).size))


def _in_order(candles: Candles) -> tuple[Candles, list[Finding]]:
    """Sorted and without exact duplicates. Rows of one time that differ stay, and are told as fatal."""
    found = []
    back = np.diff(candles.open_ns, prepend=candles.open_ns[:1]) < 0
    if back.any():
        found.append(_finding("unsorted", back, candles.open_ns, "rows older than the row before: sorted"))
        candles = _kept(candles, np.argsort(candles.open_ns, kind="stable"))
    again = np.diff(candles.open_ns, prepend=candles.open_ns[:1] - 1) == 0
    if not again.any():
        return candles, found
    same = again.copy()
    for column in candles[2:]:
        before = np.concatenate((column[:1], column[:-1]))
        same &= (column == before) | (np.isnan(column) & np.isnan(before))
    if same.any():
        found.append(_finding("duplicate", same, candles.open_ns, "rows told twice: one kept"))
    if (again & ~same).any():
        why = "two candles of one time that differ: which is true?"
        found.append(_finding("contradiction", again & ~same, candles.open_ns, why, fatal=True))
    return _kept(candles, ~same), found


def _of_times(candles: Candles) -> Iterator[Finding]:
    """Of the stamps [T], sorted: steps, grid, gaps."""
    at_ns, step_ns = candles.open_ns, candles.step_ns
    apart = np.diff(at_ns)
    apart_and_first = np.append(apart, 0)
    typical = int(np.median(apart)) if apart.size else step_ns
    overlap = (apart_and_first > 0) & (apart_and_first < step_ns)
    if typical > step_ns or np.count_nonzero(overlap) > apart.size // 2:
        why = f"candles are {told(typical)} apart, not {told(step_ns)}: is the interval right?"
        yield Finding("wrong step", apart.size, int(at_ns[0]), why, fatal=True)
        return
    off = at_ns % step_ns != 0
    if off.any():
        yield _off_grid(off, at_ns, step_ns)
    if (gap := apart_and_first > step_ns).any():
        yield _gaps(gap, apart_and_first, candles)
    if summer := _daylight_saving(at_ns[:-1][apart == 2 * step_ns], step_ns):
        yield summer


def _off_grid(off: BoolArray, at_ns: IntArray, step_ns: int) -> Finding:
    """Long candles may begin at another hour than midnight (a venue's day); others are of another zone or stamp."""
    phases = np.unique(at_ns % step_ns)
    first = told(int(phases[-1]))
    if phases.size == 1 and step_ns >= NS_PER_DAY and phases[0] % HOUR_NS == 0:
        why = f"each begins {first} after the UTC day or week: the venue's own day, or another time zone?"
        return _finding("off grid", off, at_ns, why)
    if phases.size == 1 and step_ns - phases[0] <= NS_PER_S:
        why = "stamped at the close: a stamp is when a candle opens"
    elif phases.size == 1:
        why = f"each is {first} off the UTC grid: another time zone?"
    else:
        why = f"stamps that are no multiple of {told(step_ns)}"
    return _finding("off grid", off, at_ns, why, fatal=True)


def _gaps(gap: BoolArray, apart: IntArray, candles: Candles) -> Finding:
    lacking, longest = missing(candles), int(apart.argmax())
    span = lacking + candles.open_ns.size
    why = (
        f"{lacking:,} of {span:,} candles missing ({lacking / span:.2%}), "
        f"longest {told(int(apart[longest]) - candles.step_ns)} after {date_of(int(candles.open_ns[longest]))}"
    )
    return _finding("gap", gap, candles.open_ns, why, fatal=lacking / span > GAPS_MAX)


def _daylight_saving(before_ns: IntArray, step_ns: int) -> Finding | None:
    """An hour that lacks on a Sunday each March is a clock put forward: the stamps are local time."""
    if step_ns != HOUR_NS:
        return None
    months = before_ns.astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64) % 12
    spring = (months == 2) & (before_ns // NS_PER_DAY % 7 == _SUNDAY)
    years = np.unique(before_ns[spring].astype("datetime64[ns]").astype("datetime64[Y]"))
    if years.size < 2:
        return None
    why = f"an hour lacks on a Sunday in March in {years.size} years: local time with daylight saving, not UTC?"
    return _finding("time zone", spring, before_ns, why, fatal=True)


def _of_prices(candles: Candles) -> Iterator[Finding]:
    """Of the numbers."""
    at_ns = candles.open_ns
    none, nothing, outside = _no_number(candles), _no_price(candles), _outside(candles)
    if none.any():
        yield _finding("no number", none, at_ns, "a price that is NaN or infinite", fatal=True)
    if nothing.any():
        yield _finding("no price", nothing, at_ns, "a price of zero or below", fatal=True)
    if outside.any():
        yield _finding("outside", outside, at_ns, "high below low, or open or close outside the two", fatal=True)
    if bool((none | nothing).any()):
        return  # what follows divides by prices
    yield from _jumps(candles)
    yield from _volumes(candles)
    flat = (candles.open == candles.close) & (candles.high == candles.low)
    flat &= candles.close == np.concatenate((candles.open[:1], candles.close[:-1]))
    if (run := longest_run(flat)).length >= STALE_RUN:
        why = f"the same price for {run.length:,} candles in a row: a feed that stood still?"
        yield Finding("stale", int(flat.sum()), int(at_ns[run.first]), why)


def _jumps(candles: Candles) -> Iterator[Finding]:
    """Moves that are absurd within a candle, and from one to the next where no gap is between."""
    before = np.concatenate((candles.open[:1], candles.close[:-1]))
    next_to_it = np.diff(candles.open_ns, prepend=candles.open_ns[:1]) <= candles.step_ns
    moves = (candles.high / candles.low, candles.open / before, before / candles.open)
    within, up, down = moves
    move = np.maximum(within, np.where(next_to_it, np.maximum(up, down), 1.0)) - 1.0
    if (absurd := move > JUMP_MAX).any():
        most = int(move.argmax())
        why = f"the price moved by up to {move[most]:.0%} within a candle ({date_of(int(candles.open_ns[most]))})"
        yield _finding("absurd", absurd, candles.open_ns, why, fatal=bool(move[most] > JUMP_ABSURD))


def _volumes(candles: Candles) -> Iterator[Finding]:
    volume, at_ns = candles.volume, candles.open_ns
    bad = ~np.isfinite(volume) | (volume < 0.0)
    if bad.any():
        yield _finding("volume", bad, at_ns, "a volume that is NaN or below zero: taken as 0")
    quiet = volume == 0.0
    if quiet.all():
        return  # an index or a mark has none
    if (run := longest_run(quiet)).length >= QUIET_RUN:
        why = f"no volume for {run.length:,} candles in a row: was it traded at all?"
        yield Finding("no volume", int(quiet.sum()), int(at_ns[run.first]), why)


def _no_number(candles: Candles) -> BoolArray:
    return ~np.isfinite(candles.open + candles.high + candles.low + candles.close)


def _no_price(candles: Candles) -> BoolArray:
    least = np.minimum(np.minimum(candles.open, candles.high), np.minimum(candles.low, candles.close))
    return np.asarray(least <= 0.0)


def _outside(candles: Candles) -> BoolArray:
    body_high, body_low = np.maximum(candles.open, candles.close), np.minimum(candles.open, candles.close)
    return np.asarray((candles.high < body_high * (1.0 - ROUNDING)) | (candles.low > body_low * (1.0 + ROUNDING)))


def _kept(candles: Candles, which: BoolArray | IntArray) -> Candles:
    return Candles(candles.step_ns, candles.open_ns[which], *(column[which] for column in candles[2:]))


# --- funding ------------------------------------------------------------------------------------------------


def funding_findings(rates: FundingRates) -> list[Finding]:
    """All that is wrong with funding rates as they were read."""
    if not rates.at_ns.size:
        return [Finding("empty", 1, 0, "no funding rates at all", fatal=True)]
    ordered, found = _funding_in_order(rates)
    at_ns, rate = ordered
    if (none := ~np.isfinite(rate)).any():
        found.append(_finding("no number", none, at_ns, "a rate that is NaN or infinite", fatal=True))
    found += _funding_times(at_ns)
    size = np.abs(rate[~none])
    if size.size and np.median(size) > FUNDING_MEDIAN_MAX:
        why = f"half of the rates exceed {np.median(size):.2%}: told in percent? 1 % is .01"
        found.append(Finding("absurd", int(size.size), int(at_ns[0]), why, fatal=True))
    elif (absurd := np.abs(rate) > FUNDING_ABSURD).any():
        why = f"a rate of {size.max():.2%}, above {FUNDING_ABSURD:.0%}"
        found.append(_finding("absurd", absurd, at_ns, why))
    return sorted(found, key=lambda finding: not finding.fatal)


def cleaned_funding(rates: FundingRates, drop_bad: bool = False) -> tuple[FundingRates, list[Finding]]:
    """Sorted, exact duplicates dropped, stamps some milliseconds beside the minute put onto it; and what was done.

    With `drop_bad`, rates that are no number are left out, and of two that contradict each other the later row kept.
    """
    rates, done = _funding_in_order(rates)
    if drop_bad:
        last = np.append(np.diff(rates.at_ns) > 0, True)[: rates.at_ns.size]
        if (bad := ~last | ~np.isfinite(rates.rate)).any():
            done = [finding for finding in done if not finding.fatal]
            done.append(_finding("dropped", bad, rates.at_ns, "rates that are none or contradicted left out"))
            rates = FundingRates(rates.at_ns[~bad], rates.rate[~bad])
    return rates, done


def _funding_in_order(rates: FundingRates) -> tuple[FundingRates, list[Finding]]:
    found = []
    minute = 60 * NS_PER_S
    nearest = (rates.at_ns + minute // 2) // minute * minute
    late = (nearest != rates.at_ns) & (np.abs(nearest - rates.at_ns) <= JITTER_NS)
    if late.any():
        found.append(_finding("jitter", late, rates.at_ns, "stamps within a second of the minute: put onto it"))
        rates = FundingRates(np.where(late, nearest, rates.at_ns), rates.rate)
    back = np.diff(rates.at_ns, prepend=rates.at_ns[:1]) < 0
    if back.any():
        found.append(_finding("unsorted", back, rates.at_ns, "rows older than the row before: sorted"))
        order = np.argsort(rates.at_ns, kind="stable")
        rates = FundingRates(rates.at_ns[order], rates.rate[order])
    again = np.diff(rates.at_ns, prepend=rates.at_ns[:1] - 1) == 0
    same = again & (rates.rate == np.concatenate((rates.rate[:1], rates.rate[:-1])))
    if same.any():
        found.append(_finding("duplicate", same, rates.at_ns, "rows told twice: one kept"))
    if (again & ~same).any():
        why = "two rates of one time that differ: which is true?"
        found.append(_finding("contradiction", again & ~same, rates.at_ns, why, fatal=True))
    return FundingRates(rates.at_ns[~same], rates.rate[~same]), found


def _funding_times(at_ns: IntArray) -> Iterator[Finding]:
    """The interval is the usual distance; a venue may change it, which shows as gaps or as rates between."""
    apart = np.append(np.diff(at_ns), 0)
    if at_ns.size < 3:
        return
    usual = int(np.median(apart[:-1]))
    if usual <= 0:
        return
    off = at_ns % min(usual, HOUR_NS) != 0
    if off.any():
        yield _finding("off grid", off, at_ns, "rates that do not fall on a full hour: another time zone?")
    if (gap := apart > usual * 3 // 2).any():
        why = f"{int((apart[gap] // usual - 1).sum()):,} rates missing, {told(usual)} apart as a rule"
        yield _finding("gap", gap, at_ns, why)
    if (between := (apart > 0) & (apart < usual // 2 + 1)).any():
        why = f"rates closer than the usual {told(usual)}: did the venue change its interval?"
        yield _finding("interval", between, at_ns, why)


# --- words --------------------------------------------------------------------------------------------------


def longest_run(which: BoolArray) -> Run:
    """Where the longest stretch of True begins, and how long it is; (0, 0) where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], which, [False])).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    if not begins.size:
        return Run(0, 0)
    longest = int((ends - begins).argmax())
    return Run(int(begins[longest]), int(ends[longest] - begins[longest]))


def told(duration_ns: int) -> str:
    """A duration for people: 1 h, 5 h 30 min, 3 d 4 h; its two largest parts."""
    parts, rest = [], duration_ns
    for name, unit in (("d", NS_PER_DAY), ("h", HOUR_NS), ("min", 60 * NS_PER_S), ("s", NS_PER_S), ("ms", 10**6)):
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count:,} {name}")
    return " ".join(parts[:2]) or f"{duration_ns} ns"


def date_of(ts_ns: int) -> str:
    """A time for people, UTC, to the minute."""
    return str(np.datetime64(ts_ns, "ns").astype("datetime64[m]")).replace("T", " ")


def _finding(what: str, which: BoolArray, at_ns: IntArray, why: str, fatal: bool = False) -> Finding:
    return Finding(what, int(which.sum()), int(at_ns[which.argmax()]), why, fatal)
