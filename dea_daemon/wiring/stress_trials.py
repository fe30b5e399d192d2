"""What `dea-daemon stress` lives through: episodes and drawn paths as bars, with what befalls the venue along them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_MS, NS_PER_S
from dea_daemon.research import paths as drawn
from dea_daemon.research.candles import Aligned
from dea_daemon.research.episodes import Episode, course, funding
from dea_daemon.research.stress_course import Course, excited
from dea_daemon.shell.settings import Settings
from dea_daemon.wiring.candles import Bars
from dea_daemon.wiring.stress_book import Stage, moments

MINUTE_NS, HOUR_NS = 60 * NS_PER_S, 3_600 * NS_PER_S
EPISODE_WARM_H, PATH_WARM_H, PATH_DAYS = 12.0, 240.0, 30.0
NOISE = 2.0  # of the prior's volatility, around an episode's course: assumed
HESTON = {"kappa": 5.0, "xi": 1.5, "rho": -0.3}  # assumed
BATES = {"jumps": 12.0, "jump_mean": -0.04, "jump_sd": 0.06}  # a year: assumed
HOURLY_VOLUME_USD = 1e8  # assumed: what resting orders can be filled from


class Conditions(NamedTuple):
    """What befalls the venue, bar by bar [T]: factors on depth and spread, whether it fails to answer, and whether it
    closes the shorts."""

    depth: FloatArray
    spread: FloatArray
    outage: BoolArray
    adl: BoolArray


class Trial(NamedTuple):
    """One path: bars of the daemon's perpetuals, what befalls the venue, and the course that marks everything else; the
    first `warm` bars come before it. `outages` counts what a bar may have several of."""

    name: str
    title: str
    kind: str
    bars: Bars
    conditions: Conditions
    warm: int
    course: Course
    outages: int = 0


def calm(length: int) -> Conditions:
    """Nothing befalls it."""
    one, no = np.ones(length), np.zeros(length, dtype=np.bool_)
    return Conditions(one, one.copy(), no, no.copy())


# --- bars -----------------------------------------------------------------------------------------------------------


def bars_along(
    shares: FloatArray, each_ns: int, step_ns: int, stage: Stage, warm: int, by: Callable[[FloatArray], Course]
) -> tuple[Bars, Course]:
    """Bars of `step_ns` from shares [M + 1, U] of the stage's prices every `each_ns`, and the course of their closes,
    which `by` tells from the closes' shares [T, U]. A bar's ends and extremes are those it passed."""
    many = step_ns // each_ns
    whole = (len(shares) - 1) // many
    at = np.arange(whole)[:, None] * many + np.arange(many + 1)
    within = (shares[: whole * many + 1] * stage.book.spot)[at]  # [T, many + 1, U] USD
    open_ns = stage.as_of_ns + step_ns * (np.arange(whole, dtype=np.int64) - warm)
    years = (open_ns + step_ns - stage.as_of_ns) / NS_PER_DAY / DAYS_PER_YEAR
    along = by(shares[many : whole * many + 1 : many])._replace(years=years, spot=within[:, -1])
    dear = ((1.0 + along.premium) / along.price[:, stage.money])[:, None]  # what a perpetual costs in its stablecoin
    close = within[:, -1] * dear
    opened = np.concatenate((within[:1, 0] * dear[:1], close[:-1]))
    high, low = np.maximum(within.max(axis=1) * dear, opened), np.minimum(within.min(axis=1) * dear, opened)
    volume = HOURLY_VOLUME_USD * step_ns / HOUR_NS / close
    grid = Aligned(step_ns, open_ns, opened, high, low, close, volume, np.ones(close.shape, dtype=np.bool_))
    return Bars(grid, close, whole), along


def quiet(stage: Stage, shares: FloatArray, peg: FloatArray | None = None) -> Course:
    """Along closes [T, U] that are shares of the stage's prices, nothing but prices changes; `peg` [T, C] of what is no
    coin. Times are for `bars_along` to tell."""
    book, zero = stage.book, np.zeros(len(shares))
    held = np.ones((len(shares), len(book.currencies))) if peg is None else peg
    price = np.where(book.coin >= 0, (shares * book.spot)[:, np.maximum(book.coin, 0)], held * book.price)
    return Course(zero, shares * book.spot, zero, zero, np.zeros(shares.shape), price, np.zeros(shares.shape))


def _step_ns(settings: Settings, least_ns: int) -> int:
    """The engine's rhythm in whole minutes, and at least so long."""
    asked_ns = settings.decide_every_ms * NS_PER_MS
    return max(least_ns, asked_ns // MINUTE_NS * MINUTE_NS)


# --- episodes -------------------------------------------------------------------------------------------------------


def episode_trial(episode: Episode, stage: Stage, settings: Settings, seed: int) -> Trial:
    """The episode by minutes, or by the engine's own rhythm where that is slower, after half a day's calm."""
    step_ns, underlyings = _step_ns(settings, MINUTE_NS), stage.book.underlyings
    warm_h = max(EPISODE_WARM_H, 60.0 * step_ns / HOUR_NS)
    hours, shares = course(episode, underlyings)
    vol = settings.forecast.prior_annual_vol
    before = drawn.along(np.array([0.0, warm_h]), np.ones((2, len(underlyings))), 1 / 60, vol, seed=seed)
    storm = drawn.along(hours, shares, 1 / 60, NOISE * vol, seed=seed + 1)
    path = np.concatenate((before, storm[1:]))
    warm, step_h = round(warm_h * HOUR_NS / step_ns), step_ns / HOUR_NS

    def by(closes: FloatArray) -> Course:
        return _course(episode, stage, closes, _opens_h(len(closes), warm, step_h), step_h)

    bars, along = bars_along(path, MINUTE_NS, step_ns, stage, warm, by)
    conditions = _conditions(episode, _opens_h(len(along.years), warm, step_h), step_h)
    name, outages = f"episode.{episode.name}", len(episode.outages)
    return Trial(name, episode.title, "episode", bars, conditions, warm, along, outages)


def _opens_h(length: int, warm: int, step_h: float) -> FloatArray:
    """[T] hours since the warm-up's end."""
    return step_h * np.arange(-warm, length - warm, dtype=np.float64)


def _course(of: Episode, stage: Stage, closes: FloatArray, open_h: FloatArray, step_h: float) -> Course:
    """Premium, basis and pegs are worst through the crisis, come and go within two hours; volatility follows the fall;
    funding is paid at its hours."""
    first, last = of.crisis
    ramp = np.interp(open_h, (first - 1.0, first, last, last + 2.0), (0.0, 1.0, 1.0, 0.0))
    lost = np.array([of.depeg.get(currency, 0.0) for currency in stage.book.currencies])
    plain = quiet(stage, closes, 1.0 - ramp[:, None] * lost)
    paid = np.zeros(closes.shape)
    for hour, rates in funding(of, stage.book.underlyings):
        paid[(open_h < hour - 1e-9) & (open_h + step_h >= hour - 1e-9)] += rates
    storm = np.where(open_h[:, None] >= -1e-9, closes, 1.0)
    vol = excited(storm, of.vol, step_h)
    return plain._replace(premium=of.premium * ramp, basis=of.basis * ramp, vol=vol, funding=paid)


def _conditions(of: Episode, open_h: FloatArray, step_h: float) -> Conditions:
    """The venue, bar by bar."""
    first, last = of.crisis
    within = (open_h >= first) & (open_h < last)
    outage = np.zeros(len(open_h), dtype=np.bool_)
    for hour, minutes in of.outages:
        outage |= (open_h < hour + minutes / 60.0 - 1e-9) & (open_h + step_h > hour + 1e-9)
    adl = np.zeros(len(open_h), dtype=np.bool_)
    if of.adl is not None:
        adl |= (open_h <= of.adl + 1e-9) & (open_h + step_h > of.adl + 1e-9)
    return Conditions(
        depth=np.where(within, of.depth, 1.0), spread=np.where(within, of.spread, 1.0), outage=outage, adl=adl
    )


# --- drawn paths ----------------------------------------------------------------------------------------------------


def path_trials(many: int, seed: int, settings: Settings, stage: Stage, returns: FloatArray | None) -> list[Trial]:
    """Thirty days by hours each, so many of each kind: Heston's, Bates's and, with `returns` [T, U] by hours, those
    drawn anew."""
    underlyings = stage.book.underlyings
    hours, u = round(24 * PATH_DAYS), len(underlyings)
    vol, correlation = moments(underlyings, underlyings, returns, settings)
    rho = float(np.mean(correlation[~np.eye(u, dtype=np.bool_)])) if u > 1 else 0.0
    plain = tuple(drawn.Heston(v0=v * v, theta=v * v, **HESTON) for v in vol.tolist())
    jumping = tuple(model._replace(**BATES) for model in plain)
    kinds: dict[str, tuple[str, Callable[[], FloatArray]]] = {
        "heston": ("Heston, 30 days", lambda: _heston(plain, hours, many, seed, rho)),
        "bates": ("Bates, 30 days: Heston with jumps", lambda: _heston(jumping, hours, many, seed + 1, rho)),
    }
    if returns is not None:
        title = f"history's hours drawn anew, 30 days of {len(returns):,}"
        kinds["bootstrap"] = (title, lambda: drawn.drawn(returns, hours, many, seed=seed + 2))
    return [
        _path_trial(f"{kind}.{n}", title, kind, shares, stage, settings, seed + n)
        for kind, (title, make) in kinds.items()
        for n, shares in enumerate(make())
    ]


def _heston(models: tuple[drawn.Heston, ...], hours: int, many: int, seed: int, rho: float) -> FloatArray:
    return drawn.heston(models, hours / drawn.HOURS_PER_YEAR, hours, many, seed=seed, correlation=rho)


def _path_trial(
    name: str, title: str, kind: str, shares: FloatArray, stage: Stage, settings: Settings, seed: int
) -> Trial:
    """Ten days of calm, then the path; funding each eight hours."""
    vol, warm_h = settings.forecast.prior_annual_vol, PATH_WARM_H
    before = drawn.along(np.array([0.0, warm_h]), np.ones((2, shares.shape[1])), 1.0, vol, seed=seed)
    step_ns = _step_ns(settings, HOUR_NS) // HOUR_NS * HOUR_NS
    path = np.concatenate((before, shares[1:]))
    length, warm = (len(path) - 1) * HOUR_NS // step_ns, round(warm_h * HOUR_NS / step_ns)
    if length < 2 or not warm:
        raise ConfigError(f"decide_every_ms: {settings.decide_every_ms:,}: too rare for paths of {PATH_DAYS:g} days")

    def by(closes: FloatArray) -> Course:
        rates = drawn.funding(len(path) - 1, closes.shape[1], seed=seed)
        many = step_ns // HOUR_NS
        paid = rates[: len(closes) * many].reshape(len(closes), many, -1).sum(axis=1)
        return quiet(stage, closes)._replace(funding=paid)

    bars, along = bars_along(path, HOUR_NS, step_ns, stage, warm, by)
    return Trial(name, title, kind, bars, calm(len(along.years)), warm, along)
