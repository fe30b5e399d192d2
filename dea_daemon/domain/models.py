"""What passes between the core and those who fit a model aside: lessons out, trees back. And what was learned of who
may trade, which the next run must know."""

from typing import NamedTuple

import msgspec


class Lessons(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was asked and what came, oldest first, whose outcome was known when this was sent.

    x [n, k] and y [n], little-endian float32, row by row: regressors, and the return in standard deviations of the
    horizon as forecast then. `known_days` [n] is when each outcome was known, in days since 1970, little-endian
    float32; each spans `horizon_days`.
    """

    horizon_days: float
    k: int
    x: bytes
    y: bytes
    known_days: bytes


class Trees(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Boosted trees of depth 3, each complete: their sum says a return in standard deviations of the horizon.

    Of tree t, inner node i (0 the root; the children of i are 2 i + 1 and 2 i + 2) has feature[7 t + i] and
    threshold[7 t + i]: left where x <= threshold. leaf[8 t + j] is what its j-th leaf from the left adds. None: it
    says 0.
    """

    feature: tuple[int, ...] = ()
    threshold: tuple[float, ...] = ()
    leaf: tuple[float, ...] = ()


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was ruled of a forecaster after the configuration was written; it holds until it is ruled otherwise.

    `name` is a forecaster of returns ("ridge_1d"), whose weight this is instead of the configured one, or a model of
    variance ("har", "harq", "ewma"; "cautious": the larger of the configured one's and a slow one's), which trades.
    """

    name: str
    weight: float
    who: str
    why: str
    utc_ns: int


class Evidence(NamedTuple):
    """An e-process: what a gambler has who began with 1 and bets, day by day, that the challenger loses less.

    Were it no better, the chance that `log_wealth` ever passes log(1/α) is at most α, however often one looks and
    whenever one stops (Ville 1939). `peak` is the highest it was, so e^−peak is a p-value that is always valid.
    """

    log_wealth: float = 0.0
    peak: float = 0.0
    days: int = 0
    size: float = 0.0  # sum of |difference|
    mean: float = 0.0  # sum of differences as counted
    square: float = 0.0  # and of their squares


class Drift(NamedTuple):
    """Page–Hinkley: sums of how far a series ran above its own mean. `alarm` once it ran `limit` beyond its lowest."""

    seen: int = 0
    mean: float = 0.0
    above: float = 0.0
    lowest: float = 0.0
    alarm: bool = False


class Track(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a contender has done, `rounds` times: that what trades would be better with it (`evidence`), or without it
    (`against`), and whether its own loss rises (`drift`), counted in mean absolute differences (`size` their sum)."""

    name: str
    evidence: Evidence = Evidence()
    against: Evidence = Evidence()
    drift: Drift = Drift()
    size: float = 0.0
    rounds: int = 0
    net_gain: float = 0.0


class Court(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Contenders whose outcomes come together: of returns over "1d" or "5d", or of the "variance" of a day.
    `champion` is what trades, in words: the tracks are against that."""

    name: str
    champion: str
    tracks: tuple[Track, ...] = ()


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What outlives a run; `proposed` are who is, and the weight offered."""

    standings: tuple[Standing, ...] = ()
    courts: tuple[Court, ...] = ()
    proposed: tuple[tuple[str, float], ...] = ()
