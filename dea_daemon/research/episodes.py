"""Five days that markets remember, as parameters: what prices, volatility, pegs and venues did, and who says so.

Courses of the first four: hourly closes of Binance spot as shares of the close before the first hour, thinned; `widest`
is the deepest such close among SOL, XRP, LTC and ADA where they were listed. What begins with "assumed" in `sources`
was measured by nobody here: a round figure of the right size, to be argued with.
"""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import FloatArray

CLOSES = "hourly closes of Binance spot"
PREMIUMS = "hourly closes of Binance's BTC perpetual over spot"
RATES = "funding as Binance's BTC and ETH perpetuals paid it; others as ETH's"
ASSUMED_VOL = "assumed: no index of implied volatility is in our history"
ASSUMED_VENUE = "assumed: a tenth of the usual depth, five times the spread, a minute's outage each hour of the fall"
Outage = tuple[float, float]  # hour it begins, minutes


class Episode(NamedTuple):
    """One of them. `course` has (hour, BTC, ETH) as shares of the price before; `widest` the others' worst.

    At once: `vol` the shock of a 30-day volatility as a share (others by term, as Deribit's), `premium` of perpetuals
    over the index, `basis` of dated futures (a year), `depeg` what each stablecoin loses, `haircut` more that the venue
    takes off coin collateral. In time: between hours `crisis` depth and spread are multiplied and `outages` strike; at
    hour `adl` the venue closes the shorts (None: never); `funding` has (hour, BTC, ETH), the rates of eight hours that
    longs pay at that hour. `sources` says where each of these comes from.
    """

    name: str
    title: str
    course: tuple[tuple[float, float, float], ...]
    widest: float
    vol: float
    premium: float
    basis: float
    depeg: dict[str, float]
    haircut: float
    crisis: tuple[float, float]
    depth: float
    spread: float
    outages: tuple[Outage, ...]
    adl: float | None
    funding: tuple[tuple[float, float, float], ...]
    sources: dict[str, str]


def _each_hour(first: int, last: int) -> tuple[Outage, ...]:
    """A minute in each hour of the fall."""
    return tuple((float(hour), 1.0) for hour in range(first, last))


def _sources(**more: str) -> dict[str, str]:
    """Those that most have in common."""
    usual = {
        "course": CLOSES,
        "widest": CLOSES,
        "vol": ASSUMED_VOL,
        "premium": PREMIUMS,
        "basis": "assumed",
        "haircut": "assumed",
        "funding": RATES,
        "venue": ASSUMED_VENUE,
    }
    return usual | more


EPISODES: tuple[Episode, ...] = (
    Episode(
        name="2020-03-12",
        title="12 March 2020",
        course=(
            (0, 1.0, 1.0),
            (4, 0.966, 0.941),
            (8, 0.932, 0.882),
            (10, 0.927, 0.863),
            (11, 0.758, 0.683),
            (12, 0.765, 0.702),
            (16, 0.773, 0.725),
            (20, 0.761, 0.711),
            (23, 0.731, 0.654),
            (24, 0.605, 0.554),
            (25, 0.587, 0.549),
            (26, 0.521, 0.496),
            (27, 0.611, 0.571),
            (28, 0.651, 0.638),
            (36, 0.681, 0.656),
            (40, 0.657, 0.636),
            (48, 0.703, 0.689),
        ),
        widest=-0.494,
        vol=1.5,
        premium=-0.026,
        basis=-0.20,
        depeg={},
        haircut=0.10,
        crisis=(10, 28),
        depth=0.1,
        spread=5.0,
        outages=(*_each_hour(10, 26), (26.0, 25.0)),
        adl=26.0,
        funding=(
            (8, 0.0001, 0.000545),
            (16, -0.000151, 0.0001),
            (24, -0.000161, 0.0001),
            (32, -0.003, -0.002818),
            (40, -0.000654, -0.00028),
            (48, -0.000764, 0.0001),
        ),
        sources=_sources(outage="BitMEX, then the largest venue, was away for 25 minutes near the low (press)"),
    ),
    Episode(
        name="2021-05-19",
        title="19 May 2021",
        course=(
            (0, 1.0, 1.0),
            (4, 0.947, 0.918),
            (8, 0.942, 0.884),
            (11, 0.920, 0.846),
            (12, 0.903, 0.806),
            (13, 0.822, 0.701),
            (14, 0.837, 0.739),
            (16, 0.871, 0.813),
            (20, 0.918, 0.771),
            (24, 0.856, 0.723),
            (25, 0.836, 0.661),
            (28, 0.895, 0.733),
            (32, 0.933, 0.804),
            (40, 0.967, 0.860),
            (48, 0.946, 0.820),
        ),
        widest=-0.408,
        vol=0.8,
        premium=-0.006,
        basis=-0.15,
        depeg={},
        haircut=0.05,
        crisis=(11, 16),
        depth=0.1,
        spread=5.0,
        outages=_each_hour(11, 16),
        adl=None,
        funding=(
            (8, 0.000358, 0.000533),
            (16, -0.000897, -0.003563),
            (24, 0.0001, 0.000118),
            (32, 0.0001, 0.0001),
            (40, 0.0001, 0.0001),
            (48, 0.0001, 0.0001),
        ),
        sources=_sources(),
    ),
    Episode(
        name="luna",
        title="Luna, May 2022",
        course=(
            (0, 1.0, 1.0),
            (12, 0.973, 0.955),
            (20, 0.909, 0.901),
            (24, 0.884, 0.884),
            (36, 0.929, 0.953),
            (48, 0.911, 0.929),
            (60, 0.926, 0.957),
            (66, 0.879, 0.868),
            (72, 0.855, 0.827),
            (76, 0.835, 0.782),
            (78, 0.797, 0.728),
            (79, 0.797, 0.733),
            (80, 0.828, 0.761),
            (84, 0.836, 0.775),
            (96, 0.853, 0.778),
        ),
        widest=-0.460,
        vol=0.6,
        premium=-0.002,
        basis=-0.10,
        depeg={"USDT": 0.05},
        haircut=0.05,
        crisis=(64, 80),
        depth=0.2,
        spread=3.0,
        outages=_each_hour(76, 80),
        adl=None,
        funding=(
            (8, 0.0001, 0.000094),
            (16, 0.0001, 0.000098),
            (24, 0.0001, 0.000098),
            (32, 0.0001, 0.000061),
            (40, 0.0001, 0.0001),
            (48, 0.000076, 0.000076),
            (56, 0.000069, 0.0001),
            (64, -0.000035, 0.000076),
            (72, -0.000188, -0.000186),
            (80, -0.00042, -0.000797),
            (88, -0.000147, -0.000286),
            (96, -0.000071, -0.000091),
        ),
        sources=_sources(depeg="USDT at about .95 on 12 May 2022 (press)", venue="assumed: a fifth of the usual depth"),
    ),
    Episode(
        name="ftx",
        title="FTX, November 2022",
        course=(
            (0, 1.0, 1.0),
            (8, 0.961, 0.951),
            (16, 0.948, 0.933),
            (17, 0.989, 0.986),
            (18, 0.939, 0.923),
            (19, 0.903, 0.858),
            (20, 0.887, 0.839),
            (24, 0.901, 0.851),
            (32, 0.886, 0.813),
            (36, 0.865, 0.778),
            (40, 0.831, 0.742),
            (44, 0.815, 0.762),
            (46, 0.765, 0.706),
            (48, 0.773, 0.703),
            (52, 0.795, 0.749),
            (60, 0.796, 0.757),
        ),
        widest=-0.578,
        vol=0.6,
        premium=-0.003,
        basis=-0.15,
        depeg={"USDT": 0.02},
        haircut=0.20,
        crisis=(18, 48),
        depth=0.3,
        spread=3.0,
        outages=_each_hour(18, 22),
        adl=None,
        funding=(
            (8, -0.000008, -0.000115),
            (16, 0.000094, 0.000079),
            (24, -0.000139, -0.000385),
            (32, 0.000073, -0.000122),
            (40, -0.00033, -0.000547),
            (48, -0.001192, -0.000601),
            (56, -0.00112, -0.000543),
        ),
        sources=_sources(depeg="assumed", venue="assumed: three tenths of the usual depth"),
    ),
    Episode(
        name="2025-10-10",
        title="10 October 2025",
        course=(
            (0, 1.0, 1.0),
            (6, 0.975, 0.950),
            (10, 0.960, 0.930),
            (12.0, 0.955, 0.920),
            (12.25, 0.920, 0.870),
            (12.5, 0.870, 0.790),
            (12.75, 0.900, 0.830),
            (13, 0.920, 0.850),
            (16, 0.930, 0.870),
            (24, 0.925, 0.865),
            (36, 0.930, 0.870),
            (48, 0.945, 0.890),
        ),
        widest=-0.60,
        vol=0.6,
        premium=-0.03,
        basis=-0.15,
        depeg={"USDE": 0.35, "USDC": 0.01},
        haircut=0.35,
        crisis=(12, 14),
        depth=0.1,
        spread=5.0,
        outages=tuple((12.0 + n / 12.0, 1.0) for n in range(12)),
        adl=12.5,
        funding=(
            (7, 0.0001, 0.0001),
            (15, -0.0005, -0.001),
            (23, -0.0002, -0.0004),
            (31, 0.0, 0.0),
            (39, 0.00005, 0.00005),
            (47, 0.00005, 0.00005),
        ),
        sources=_sources(
            course="press: BTC from about 117,000 to 102,000 to 104,000 within the hour; the rest of it assumed",
            widest="assumed; press: several coins by half to four fifths",
            premium="press: BTC perpetuals at Binance to 101,389, below spot; the figure assumed",
            depeg="USDe at .65 on Binance (press); USDC assumed",
            haircut="assumed: the 35 % that a stablecoin held as collateral was marked down",
            funding="assumed; press: the most negative of any day since 2022",
            venue="press: depth fell by nine tenths and more, calls timed out; their rhythm assumed",
        ),
    ),
)


def course(episode: Episode, underlyings: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """(hours [K], shares of the price before [K, U]). The others go Ether's way, further by as much as `widest` is."""
    hours, btc, eth = (np.array(column, dtype=np.float64) for column in zip(*episode.course, strict=True))
    further = np.log1p(episode.widest) / np.log(eth.min())
    columns = {"BTC": btc, "ETH": eth}
    shares = [columns.get(u, eth**further) for u in underlyings]
    return hours, np.stack(shares, axis=1) if shares else np.zeros((len(hours), 0))


def worst(episode: Episode, underlyings: tuple[str, ...]) -> FloatArray:
    """[U] the deepest moves, as fractions, at once; an underlying that is neither BTC nor ETH by `widest`."""
    return np.asarray(course(episode, underlyings)[1].min(axis=0) - 1.0, dtype=np.float64)


def funding(episode: Episode, underlyings: tuple[str, ...]) -> list[tuple[float, FloatArray]]:
    """(hour, rates [U] of eight hours that longs pay then); the others pay Ether's."""
    return [
        (hour, np.array([btc if name == "BTC" else eth for name in underlyings])) for hour, btc, eth in episode.funding
    ]
