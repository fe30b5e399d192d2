"""What the report says in words: headline tiles, a summary, and what each drawing shows. Numbers as people write them.

A verdict is given only where an interval supports it: what could be chance is called so.
"""

from typing import Any

EQUITY = (
    "What the account was worth, and how far below its own highest value it stood. Drag over a stretch to enlarge it, "
    "double-click to go back."
)
BESIDE = (
    "The same prices and funding without any skill: cash, and equal weights. At equal volatility the leverage was "
    "chosen after the fact. Intervals: stationary bootstrap of daily returns, the same days drawn for both; where the "
    "gap's interval spans zero, the difference could be chance."
)
RISK = (
    "Volatility of every 30 days that end at a decision, against the one aimed at. It lags what it measures by half a "
    "month."
)
MADE = (
    "Market: what moves of an underlying made of the exposure held. Funding: received, or paid if below zero. "
    "Slippage: paid beside the mid price. Rest: what nothing else explains, such as the basis. They add up to the "
    "change of equity, as do the parts of the second table, which cuts by what was decided: what the targets would "
    "have made had they been held at every moment, what standing off them added or took, carry, costs."
)
COST = (
    "Traded each month as a multiple of equity, and what that cost: fees and slippage, 1 bp = 0.01 %. Funding is told "
    "elsewhere."
)
LIMITS = "Share used of each hard limit; 100 % is the limit itself."
WORST = "Days (UTC) of the lowest returns, and the parts that made most of each."
YEARS = "Each calendar year, the first and the last as far as they go; turnover, cost and funding over its mean equity."


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """`−0.06`; `–` where there is none. What rounds to nothing has no minus."""
    return "–" if value is None else f"{value:{'+' if sign else ''}z,.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 1, sign: bool = False) -> str:
    """`15.1 %` of .151."""
    return "–" if share is None else f"{number(100 * share, digits, sign)} %"


def usd(amount: float, digits: int = 0) -> str:
    """`−$1,234`."""
    return f"{'−' if amount < 0 else ''}${abs(amount):,.{digits}f}"


def interval(told: dict[str, Any] | None, alone: float | None, sign: bool = False) -> str:
    """`0.80 [−0.11, 1.66]`; without an interval the number alone."""
    if told is None:
        return number(alone)
    return f"{number(told['estimate'], sign=sign)} [{number(told['low'])}, {number(told['high'])}]"


def tiles(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(label, value, note) of the headline."""
    f, own = told["figures"], told["beside"][0]
    fall, band = f["drawdown"], f["in_band"]["all"]
    target = (
        "no target" if f["target_vol"] is None else f"target {percent(f['target_vol'])}, ratio {number(f['vol_ratio'])}"
    )
    sharpe_note = "nothing moved"
    if own["sharpe_interval"]:
        sharpe_note = f"95 %: {number(own['sharpe_interval']['low'])} to {number(own['sharpe_interval']['high'])}"
    ends = "not made good" if fall["until"] is None else f"made good {fall['until'][:10]}"
    yearly = f["annual_return"]
    first = (
        ("Return a year", percent(yearly), f"{percent(f['total_return'], sign=True)} in all")
        if yearly is not None
        else ("Return in all", percent(f["total_return"], sign=True), "too short to annualise")
    )
    return [
        first,
        ("Volatility a year", percent(f["annual_vol"]), target),
        ("Risk on target", percent(f["windows_within_25pct"], 0), "of 30-day windows within ± 25 %"),
        ("Sharpe ratio", number(f["sharpe"]), sharpe_note),
        ("Deepest fall", percent(f["max_drawdown"]), f"from {fall['from'][:10]}, {ends}"),
        ("Cost a year", percent(f["cost_per_year"], 2), "fees and slippage, of equity"),
        ("Funding a year", percent(f["funding_per_year"], 2, sign=True), "of equity; below zero it was paid"),
        ("Turnover a year", f"{number(f['turnover_per_year'], 1)}×", "of equity"),
        (
            "Exposure held",
            f"{number(f['leverage']['mean'])}×",
            f"of equity, gross; at most {number(f['leverage']['max'])}×",
        ),
        ("In the band", percent(band), "of decisions with a target"),
    ]


def summary(told: dict[str, Any]) -> list[str]:
    """Sentences for who reads nothing else."""
    f = told["figures"]
    return [text for text in (_course(f), _risk(f), _fall(f), _verdict(told)) if text]


def _course(f: dict[str, Any]) -> str:
    yearly = "" if f["annual_return"] is None else f", {percent(f['annual_return'])} a year"
    return (
        f"Over {number(f['years'], 1)} years the account went from {usd(f['capital_usd'])} to {usd(f['equity_usd'])}"
        f"{yearly}, deciding {_every(f['step_hours'])} over {_and(f['underlyings'])}. Fees and slippage took "
        f"{percent(f['cost_per_year'], 2)} of equity a year, funding {_funding(f['funding_per_year'])}."
    )


def _every(hours: float) -> str:
    if hours == 1.0:
        return "every hour"
    return f"every {hours:g} hours" if hours > 1.0 else f"every {60 * hours:g} minutes"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _funding(share: float) -> str:
    return f"{'took' if share < 0 else 'added'} {percent(abs(share), 2)}"


def _risk(f: dict[str, Any]) -> str:
    if f["target_vol"] is None or f["vol_ratio"] is None:
        return ""
    windows = ""
    if f["windows_within_25pct"] is not None:
        windows = f"; {percent(f['windows_within_25pct'], 0)} of all 30-day windows lay within ± 25 % of it"
    return (
        f"It aimed at {percent(f['target_vol'])} volatility and realised {percent(f['annual_vol'])}, "
        f"{number(f['vol_ratio'])} of the target{windows}."
    )


def _fall(f: dict[str, Any]) -> str:
    fall = f["drawdown"]
    if f["max_drawdown"] == 0.0:
        return ""
    good = f"made good on {fall['until'][:10]}" if fall["until"] else "not made good by the end"
    return (
        f"The deepest fall was {percent(f['max_drawdown'])}, from {fall['from'][:10]} to {fall['bottom'][:10]}, "
        f"{good}. The longest time below a high was {fall['longest_days']:.0f} days."
    )


def _verdict(told: dict[str, Any]) -> str:
    """Whether the run beat the static book at equal volatility: only as far as the interval goes."""
    text = ""
    own = told["beside"][0]["sharpe_interval"]
    if own:
        sure = "above zero" if own["low"] > 0 else "below zero" if own["high"] < 0 else "not to be told from zero"
        text = f"Its Sharpe ratio is {interval(own, None)} at 95 %: {sure}. "
    equal = [row for row in told["beside"][1:] if row["sharpe_gap"] and "equal volatility" in row["name"]]
    if equal:
        gap = equal[0]["sharpe_gap"]
        chance = "which could be chance" if gap["low"] <= 0 <= gap["high"] else "more than chance explains"
        way = "higher" if gap["estimate"] >= 0 else "lower"
        text += (
            f"Beside the {equal[0]['name']}, it is {number(abs(gap['estimate']))} {way} "
            f"[{number(gap['low'])}, {number(gap['high'])}], {chance}."
        )
    return text.strip()


def exposure(f: dict[str, Any]) -> str:
    """Above the drawings of exposure."""
    shares = [(name, f["in_band"][name]) for name in f["underlyings"] if f["in_band"][name] is not None]
    told = _and([f"{name} {percent(share)}" for name, share in shares]) if shares else ""
    tail = f" Share of decisions within the band: {told}." if told else ""
    return f"Held, after the decision's fills so far, against the target; within the band nothing is traded.{tail}"


def foresight(told: dict[str, Any]) -> str:
    """Above the tables of forecasts: how to read them, and only what the tests support."""
    text = "Each day judged by what was recorded before it began. "
    if rows := told["volatility"]:
        text += (
            "QLIKE: loss of the next day's variance, less is better; beside it that of exponential weights with a mean "
            f"age of ten days. {_better(rows)} "
        )
    if rows := told["var"]:
        failed = [row["name"] for row in rows if row["kupiec_p"] < 0.05]
        refused = f"refused for {_and(failed)}" if failed else "not refused anywhere"
        text += f"That losses go beyond their limit on one day in a hundred is {refused} (Kupiec, 5 %). "
    if told["returns"]:
        text += "Of returns: what each forecaster had scored by the end, t against a forecast of zero. "
    if told["trials"]:
        text += (
            "On trial: whether what trades would have lost less with a contender, or without it, on outcomes that do "
            "not overlap; a p that holds however often one looks. Drift: how near its loss has come to the alarm."
        )
    return text.strip()


def _better(rows: list[dict[str, Any]]) -> str:
    """By Diebold and Mariano's t, with the signs that are more than chance."""
    better = [row["name"] for row in rows if row["t"] > 0.0 and row["p"] < 0.05]
    worse = [row["name"] for row in rows if row["t"] < 0.0 and row["p"] < 0.05]
    told = [f"{how} for {_and(names)}" for how, names in (("better", better), ("worse", worse)) if names]
    return f"More than chance explains (Diebold–Mariano, 5 %): {'; '.join(told) or 'no difference'}."


def falls(told: dict[str, Any]) -> str:
    """The bootstrap's drawdowns."""
    block = "single days" if told["block"] < 1.5 else f"blocks of {told['block']:.0f} days on average"
    return (
        f"The same days in another order ({told['paths']:,} paths of {block}) would have fallen "
        f"{percent(told['median'])} in the middle case; "
        f"one in ten {percent(told['p90'])} or more, one in twenty {percent(told['p95'])}, one in a "
        f"hundred {percent(told['p99'])}. What happened, {percent(told['happened'])} at day ends, was exceeded in "
        f"{percent(told['worse'], 0)} of the paths. {_limited(told['limit'])}"
    )


def _limited(limit: float | None) -> str:
    if limit is None:
        return "A limit on drawdowns that was at work then is in the returns, but does not act anew on the paths."
    return f"The control that keeps falls within {percent(limit)} acts on each path anew, once a day."


def warnings(f: dict[str, Any]) -> list[str]:
    """What a reader must know before the numbers: the run's own notes, and what is odd about it."""
    told = list(f["notes"])
    if f["ruined"]:
        told.insert(0, f"The account was ruined at {f['ruined']}: the report ends there.")
    if f["years"] < 1.0:
        told.append(f"Only {365 * f['years']:.0f} days: yearly figures of so short a stretch say little.")
    above = [row["name"] for row in f["limits"] if row["above"] > 0.0]
    if above:
        told.append(f"Used above 100 % at some time: {', '.join(above)}.")
    return told
