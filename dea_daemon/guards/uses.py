"""How much of every limit is used, for the record and the screen."""

import numpy as np

from dea_daemon.domain.decisions import LimitUse, View
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards.conditions import cancel_ratio, daily_loss, drawdown
from dea_daemon.guards.limits import Book


def uses(book: Book, params: GuardParameters) -> tuple[LimitUse, ...]:
    """At the worst combination of working orders: USD, or fractions (of equity, or 1 at the limit). What has no
    limit has no line."""
    return (*_exposures(book), *_budgets(book, params), *_account(book.view, params))


def _exposures(book: Book) -> list[LimitUse]:
    low, high = book.extremes()
    line = zip(book.lines.limit, book.lines.subject, low.tolist(), high.tolist(), book.line_cap.tolist(), strict=True)
    told = [LimitUse(limit, of, _larger(-least, most), cap) for limit, of, least, most, cap in line]
    per_row = book.instrument_usd()
    names, cap = book.view.universe.instruments, book.cap.instrument
    rows = zip(book.rows.tolist(), per_row.tolist(), strict=True)
    told += [LimitUse("instrument", names[row].name, usd, cap) for row, usd in rows if usd != 0.0]
    sums = zip(book.sums.limit, book.sums.subject, book.sums_usd(per_row).tolist(), book.sum_cap.tolist(), strict=True)
    told += [LimitUse(limit, of, usd, cap) for limit, of, usd, cap in sums]
    losses = book.losses_usd()
    return told + [LimitUse(kind, "book", usd, getattr(book.cap, kind)) for kind, usd in losses.items()]


def _larger(a: float, b: float) -> float:
    """Of |a| and |b|; NaN where either is."""
    return max(abs(a), abs(b)) if a == a and b == b else float("nan")


def _budgets(book: Book, params: GuardParameters) -> list[LimitUse]:
    view, (turnover, fees) = book.view, book.stake_usd()
    told = [
        LimitUse("turnover", "hour", view.turnover_hour_usd + turnover, params.max_turnover_usd_per_hour),
        LimitUse("fees", "hour", view.fees_hour_usd + fees, params.max_fees_usd_per_hour),
        LimitUse("orders", "minute", view.creates_last_minute, params.max_orders_per_minute),
    ]
    if params.max_turnover_usd_per_day is not None:
        told.append(LimitUse("turnover", "day", view.turnover_day_usd + turnover, params.max_turnover_usd_per_day))
    if params.max_fees_usd_per_day is not None:
        told.append(LimitUse("fees", "day", view.fees_day_usd + fees, params.max_fees_usd_per_day))
    if params.max_cancel_ratio is not None:
        told.append(LimitUse("cancel_ratio", "hour", cancel_ratio(view), params.max_cancel_ratio))
    return told


def _account(view: View, params: GuardParameters) -> list[LimitUse]:
    told = [LimitUse("margin", "pool", view.margin_use, params.max_margin_use)]
    if (least := params.min_liquidation_distance) is not None:
        told.append(LimitUse("liquidation", "pool", least / max(view.liquidation_distance, 1e-6), 1.0))
    if (most := params.max_daily_loss or params.flatten_daily_loss or params.halt_daily_loss) is not None:
        told.append(LimitUse("daily_loss", "book", daily_loss(view), most))
    told.append(LimitUse("drawdown", "book", drawdown(view), params.max_drawdown))
    off = view.peg != 1.0
    if np.count_nonzero(off):
        currency = view.universe.settle_currency
        for c in sorted(set(currency[off].tolist())):
            of = abs(float(view.peg[currency == c][0]) - 1.0)
            told.append(LimitUse("depeg", view.universe.settle_currencies[c], of, params.max_depeg))
    return told
