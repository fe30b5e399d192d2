"""What a run's record comes to: return, risk against the one aimed at, cost, and what made each dollar of the change.

Shares are fractions (0.2 is 20 %), amounts USD, times UTC. What cannot be said (no target, too short) is None, never 0.
"""

from typing import Any, NamedTuple

import numpy as np

from dea_daemon.domain.errors import DataError
from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY
from dea_daemon.research.record import Record

WINDOW_DAYS = 30
TOLERANCE = 0.25  # a window's volatility counts as on target within this share of it
WORST_DAYS = 10
_ANNUALISE_DAYS = 30  # below this a yearly return says more about the calendar than about the run
_YEAR_NS = DAYS_PER_YEAR * NS_PER_DAY


def figures(record: Record) -> dict[str, Any]:
    """All figures of one run, ready for JSON.

    A run whose equity reached zero ends there (`ruined`). Raises DataError for fewer than two decisions or an equity
    that is not a number.
    """
    run, ruined = until_ruin(record)
    mean_equity = float(np.mean(run.equity_usd))
    return {
        **_span(run),
        "ruined": ruined,
        **_returns(run),
        **_tracking(run),
        **_drawdown(run),
        **_costs(run, mean_equity),
        "leverage": _leverage(run),
        "in_band": in_band(run),
        "limits": _limits(run),
        "attribution": attribution(run),
        "calendar_years": calendar_years(run),
        "worst_days": worst_days(run),
        "notes": list(run.notes),
    }


def stamp(at_ns: int) -> str:
    """`2020-03-12 10:00` UTC."""
    return str(np.datetime64(int(at_ns), "ns").astype("datetime64[m]")).replace("T", " ")


def day(at_ns: int) -> str:
    """`2020-03-12`: the day that ends at or after it. Midnight is the end of the day before."""
    return str(np.datetime64(int(at_ns) - 1, "ns").astype("datetime64[D]"))


def cut(record: Record, first: int, last: int) -> Record:
    """Decisions first … last, both included. Sums go on counting from the record's own start."""
    t = len(record.at_ns)
    columns: dict[str, Any] = {
        name: column[first : last + 1]
        for name, column in record._asdict().items()
        if isinstance(column, np.ndarray) and column.shape[:1] == (t,)
    }
    trades = tuple(x for x in record.trades if record.at_ns[first] <= x.at_ns <= record.at_ns[last])
    return record._replace(**columns, trades=trades)


def until_ruin(record: Record) -> tuple[Record, str | None]:
    """The record up to the first decision without equity, and when that was."""
    equity = record.equity_usd
    if len(equity) < 2 or not np.isfinite(equity).all():
        raise DataError(f"{record.name}: figures need two decisions or more, and an equity at each of them")
    if not all(np.isfinite(sums).all() for sums in parts(record).values()):
        raise DataError(f"{record.name}: a sum (market, funding, fees, slippage) is not a number at some decision")
    if not (equity[0] > 0.0 and record.capital_usd > 0.0):
        raise DataError(f"{record.name}: it began without equity")
    if (equity > 0.0).all():
        return record, None
    end = int(np.argmax(~(equity > 0.0)))
    return cut(record, 0, end), stamp(record.at_ns[end])


# --- days ------------------------------------------------------------------------------------------------


class Days(NamedTuple):
    """D days: `first` and `last` [D] are the decisions a day began and ended at; `last` of one is `first` of the
    next."""

    first: IntArray
    last: IntArray

    def returns(self, equity_usd: FloatArray) -> FloatArray:
        """[D] simple."""
        return np.asarray(equity_usd[self.last] / equity_usd[self.first] - 1.0)


def days(record: Record) -> Days:
    """UTC days. A decision at midnight closes the day before; where a day is missing its neighbour spans it."""
    number = (record.at_ns - 1) // NS_PER_DAY
    ends = np.flatnonzero(np.append(number[1:] != number[:-1], True))
    marks = ends if ends[0] == 0 else np.append(0, ends)
    return Days(marks[:-1], marks[1:])


def daily_returns(record: Record) -> FloatArray:
    """[D] simple returns of UTC days."""
    return days(record).returns(record.equity_usd)


# --- risk and return -------------------------------------------------------------------------------------


def _span(run: Record) -> dict[str, Any]:
    return {
        "name": run.name,
        "start": stamp(run.at_ns[0]),
        "end": stamp(run.at_ns[-1]),
        "years": run.years,
        "bars": len(run.at_ns),
        "step_hours": run.step_ns / 3.6e12,
        "underlyings": list(run.underlyings),
        "capital_usd": run.capital_usd,
        "equity_usd": float(run.equity_usd[-1]),
        "trades": len(run.trades),
    }


def _returns(run: Record) -> dict[str, Any]:
    """Return and risk. `annual_vol` is that of returns between decisions; the Sharpe ratio is of daily returns, with
    nothing subtracted for cash. Standard error: Lo (2002), The Statistics of Sharpe Ratios, eq. 9, for independent
    returns."""
    growth = max(float(run.equity_usd[-1]), 0.0) / run.capital_usd
    daily = daily_returns(run)
    per_year = len(daily) / run.years
    ratio = sharpe(daily, per_year)
    error = None
    if ratio is not None:
        error = float(np.sqrt((1.0 + 0.5 * ratio**2 / per_year) / len(daily) * per_year))
    return {
        "total_return": growth - 1.0,
        "annual_return": growth ** (1.0 / run.years) - 1.0 if run.years * DAYS_PER_YEAR >= _ANNUALISE_DAYS else None,
        "annual_vol": annualised_vol(run.returns, len(run.returns) / run.years),
        "annual_vol_daily": annualised_vol(daily, per_year),
        "sharpe": ratio,
        "sharpe_error": error,
    }


def annualised_vol(returns: FloatArray, per_year: float) -> float | None:
    """Sample standard deviation, of a year."""
    return float(np.std(returns, ddof=1) * np.sqrt(per_year)) if len(returns) > 2 else None


def sharpe(returns: FloatArray, per_year: float) -> float | None:
    """Arithmetic mean over standard deviation, of a year; None where nothing moved."""
    vol = annualised_vol(returns, per_year)
    return float(np.mean(returns) * per_year / vol) if vol is not None and vol > 1e-12 else None


def rolling_vol(record: Record, window_days: int = WINDOW_DAYS) -> tuple[IntArray, FloatArray]:
    """(at_ns [W], annual volatility [W]) of every window that ends at a decision: root mean square of returns, so the
    mean is taken as zero (over a month it is noise). Empty where the record is shorter than a window."""
    n = max(round(window_days * NS_PER_DAY / record.step_ns), 2)
    squares = np.append(0.0, np.cumsum(record.returns**2))
    if len(squares) <= n:
        return record.at_ns[:0], np.empty(0)
    years = (record.at_ns[n:] - record.at_ns[:-n]) / _YEAR_NS
    return record.at_ns[n:], np.sqrt(np.maximum(squares[n:] - squares[:-n], 0.0) / years)


def _tracking(run: Record) -> dict[str, Any]:
    """How well the volatility aimed at was met."""
    target = run.target_vol
    vol = annualised_vol(run.returns, len(run.returns) / run.years)
    _, windows = rolling_vol(run)
    within = None
    if target > 0.0 and len(windows):
        within = float(np.mean(np.abs(windows - target) <= TOLERANCE * target))
    return {
        "target_vol": target if target > 0.0 else None,
        "vol_ratio": vol / target if target > 0.0 and vol is not None else None,
        "windows": len(windows),
        "windows_within_25pct": within,
    }


def drawdowns(equity_usd: FloatArray) -> FloatArray:
    """[T] share below the highest equity until then; 0 at a new high."""
    return np.asarray(1.0 - equity_usd / np.maximum.accumulate(equity_usd))


def _drawdown(run: Record) -> dict[str, Any]:
    """The deepest fall, its dates, and the longest time below a high."""
    below = drawdowns(run.equity_usd)
    bottom = int(np.argmax(below))
    highs = np.flatnonzero(below <= 0.0)
    peak = int(highs[highs <= bottom][-1])
    later = highs[highs > bottom]
    until = int(later[0]) if len(later) else None
    end_ns = run.at_ns[-1] if until is None else run.at_ns[until]
    waits = np.diff(np.append(run.at_ns[highs], run.at_ns[-1]))
    return {
        "max_drawdown": float(below[bottom]),
        "drawdown": {
            "from": stamp(run.at_ns[peak]),
            "bottom": stamp(run.at_ns[bottom]),
            "until": None if until is None else stamp(run.at_ns[until]),
            "days": float((end_ns - run.at_ns[peak]) / NS_PER_DAY),
            "longest_days": float(np.max(waits) / NS_PER_DAY),
        },
    }


def calendar_years(run: Record) -> list[dict[str, Any]]:
    """Return, volatility, drawdown and cost of each calendar year, the first and last as far as they go."""
    number = (run.at_ns - 1).astype("datetime64[ns]").astype("datetime64[Y]")
    ends = np.flatnonzero(np.append(number[1:] != number[:-1], True))
    starts = np.append(0, ends[:-1])
    rows = []
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        if last <= first:
            continue
        part = cut(run, first, last)
        cost = part.fees_usd + part.slippage_usd
        rows.append(
            {
                "year": str(number[last]),
                "return": float(part.equity_usd[-1] / part.equity_usd[0] - 1.0),
                "vol": annualised_vol(part.returns, len(part.returns) / part.years),
                "max_drawdown": float(np.max(drawdowns(part.equity_usd))),
                "cost": float((cost[-1] - cost[0]) / np.mean(part.equity_usd)),
                "funding": float((part.funding_usd[-1] - part.funding_usd[0]) / np.mean(part.equity_usd)),
                "turnover": float((part.turnover_usd[-1] - part.turnover_usd[0]) / np.mean(part.equity_usd)),
            }
        )
    return rows


# --- cost, exposure, limits ------------------------------------------------------------------------------


def _costs(run: Record, mean_equity: float) -> dict[str, Any]:
    """Per year, over the mean equity. `carry` is funding a year over the mean gross exposure: what a dollar held
    received (paid, if negative)."""
    scale = 1.0 / (mean_equity * run.years) if mean_equity > 0.0 else np.nan
    fees, slippage = float(run.fees_usd[-1]), float(run.slippage_usd[-1])
    gross = float(np.mean(np.nansum(np.abs(run.exposure_usd), axis=1)))
    return {
        "mean_equity_usd": mean_equity,
        "cost_per_year": (fees + slippage) * scale,
        "fees_per_year": fees * scale,
        "slippage_per_year": slippage * scale,
        "turnover_per_year": float(run.turnover_usd[-1]) * scale,
        "funding_per_year": float(run.funding_usd[-1]) * scale,
        "carry": float(run.funding_usd[-1]) / (gross * run.years) if gross > 0.0 else None,
    }


def _leverage(run: Record) -> dict[str, float]:
    """Gross exposure over equity."""
    solvent = run.equity_usd > 0.0
    gross = np.nansum(np.abs(run.exposure_usd), axis=1)[solvent] / run.equity_usd[solvent]
    return {"mean": float(np.mean(gross)), "max": float(np.max(gross))}


def within_band(record: Record) -> tuple[BoolArray, BoolArray]:
    """([T, U] exposure lies in target ± band, [T, U] there is a target at all)."""
    aimed = np.isfinite(record.target_usd)
    band = np.where(np.isfinite(record.band_usd), record.band_usd, 0.0)
    miss = np.abs(np.where(aimed, record.exposure_usd - record.target_usd, 0.0))
    return aimed & (miss <= band * (1.0 + 1e-9) + 1e-6), aimed


def in_band(run: Record) -> dict[str, float | None]:
    """Share of decisions at which the exposure held lay within the band, of those with a target; and over `all`."""
    inside, aimed = within_band(run)
    share = {name: _share(inside[:, u], aimed[:, u]) for u, name in enumerate(run.underlyings)}
    return share | {"all": _share(inside, aimed)}


def _share(of: BoolArray, among: BoolArray) -> float | None:
    count = int(among.sum())
    return int(of.sum()) / count if count else None


def _limits(run: Record) -> list[dict[str, Any]]:
    """Most and mean used of each limit, the tightest first; what was not measured does not count."""
    rows: list[dict[str, Any]] = []
    for n, name in enumerate(run.limits):
        used = run.used[:, n]
        known = np.isfinite(used)
        if known.any():
            at = int(np.argmax(np.where(known, used, -np.inf)))
            row = {"name": name, "max": float(used[at]), "mean": float(np.mean(used[known]))}
            rows.append(row | {"at": stamp(run.at_ns[at]), "above": float(np.mean(used[known] > 1.0))})
    return sorted(rows, key=lambda row: -row["max"])


# --- what made it ----------------------------------------------------------------------------------------


def parts(record: Record) -> dict[str, FloatArray]:
    """What made the equity, USD since the start, [T] each. They add up to equity − capital: `rest` is what nothing
    else explains (the basis between contract and underlying, a curved payoff between two decisions)."""
    made = {f"market {name}": record.market_usd[:, u] for u, name in enumerate(record.underlyings)}
    made |= {"funding": record.funding_usd, "fees": -record.fees_usd, "slippage": -record.slippage_usd}
    explained = np.sum([*made.values()], axis=0)
    return made | {"rest": record.equity_usd - record.capital_usd - explained}


def attribution(run: Record) -> dict[str, Any]:
    """The change of equity by part, and by `sources` of another cut; each in USD and as a share of the capital, in
    whole cents, and they add up to the cent."""
    made = sources(run)
    return {
        "change_usd": _cents(float(run.equity_usd[-1]) - run.capital_usd) / 100,
        "parts": _in_cents(run, {name: float(sums[-1]) for name, sums in parts(run).items()}),
        "sources": None if made is None else _in_cents(run, made),
    }


def sources(run: Record) -> dict[str, float] | None:
    """USD of what was decided: the targets' own direction (as if each had been held to the cent), standing off them
    (the band, and trading late), carry, costs; None where there never was a target."""
    aimed = np.isfinite(run.target_usd[:-1])
    if not aimed.any():
        return None
    moved = np.nan_to_num(np.diff(run.price, axis=0) / run.price[:-1])
    by_target = float(np.sum(np.where(aimed, run.target_usd[:-1], 0.0) * moved))
    market = float(np.sum(run.market_usd[-1]))
    made = {"the targets' direction": by_target, "standing off the targets": market - by_target}
    made |= {"carry (funding)": float(run.funding_usd[-1])}
    made |= {"costs (fees, slippage)": -float(run.fees_usd[-1] + run.slippage_usd[-1])}
    return made | {"rest": float(run.equity_usd[-1]) - run.capital_usd - sum(made.values())}


def _in_cents(run: Record, made: dict[str, float]) -> list[dict[str, Any]]:
    """`rest` takes what rounding leaves."""
    cents = {name: _cents(amount) for name, amount in made.items()}
    change = _cents(float(run.equity_usd[-1]) - run.capital_usd)
    cents["rest"] = change - sum(amount for name, amount in cents.items() if name != "rest")
    return [
        {"name": name, "usd": amount / 100, "share": amount / 100 / run.capital_usd} for name, amount in cents.items()
    ]


def _cents(usd: float) -> int:
    return round(100 * usd)


def worst_days(run: Record, count: int = WORST_DAYS) -> list[dict[str, Any]]:
    """The days of the lowest returns, the worst first, with what made each: USD by part, and in words."""
    spans = days(run)
    returns, made = spans.returns(run.equity_usd), parts(run)
    worst = np.argsort(returns, kind="stable")[:count]
    rows = []
    for n in worst[returns[worst] < 0.0].tolist():
        first, last = int(spans.first[n]), int(spans.last[n])
        usd = {name: round(float(sums[last] - sums[first]), 2) + 0.0 for name, sums in made.items()}
        row = {"date": day(run.at_ns[last]), "return": float(returns[n]), "usd": usd}
        rows.append(row | {"why": _why(run, first, last, usd)})
    return rows


def _why(run: Record, first: int, last: int, usd: dict[str, float]) -> str:
    """The parts that made most of a bad day, in words."""
    equity = float(run.equity_usd[first])
    loss = -sum(usd.values())
    told: list[str] = []
    for name, amount in sorted(usd.items(), key=lambda item: item[1]):
        if amount >= 0.0 or (told and -amount < 0.15 * loss):
            break
        text = f"{name.removeprefix('market ')} {_percent(amount / equity)}"
        if name.startswith("market "):
            u = run.underlyings.index(name.removeprefix("market "))
            move = float(run.price[last, u] / run.price[first, u] - 1.0)
            held = float(run.exposure_usd[first, u]) / equity
            text += f" (moved {_percent(move)}, held {_percent(held)} of equity)"
        told.append(text)
    return ", ".join(told)


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")
