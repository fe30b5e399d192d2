"""What a book loses at once: every contract valued again under moves of price, volatility, basis and pegs together.

The whole is revalued by Black 1976 and each contract's own payoff (not by Greeks), in the currency it settles in; then
every currency is worth what it is worth after. Equity E_c, price P_c: loss = Σ E_c P_c − Σ (E_c + gain_c) P_c'.
What the state after looks like is measured as guards measure it: exposures by small bumps of the same revaluation.
"""

from typing import NamedTuple

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray, IntArray
from dea_daemon.domain.numbers import DAYS_PER_YEAR
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.pricing import black, worst_days
from dea_daemon.pricing.exposure import term_weight
from dea_daemon.pricing.revaluation import MOVES, VOLS
from dea_daemon.research.episodes import EPISODES, Episode, worst
from dea_daemon.research.report_words import percent

EXTENDED = (-0.66, -0.33, 0.50, 1.0, 2.0, 3.0, 4.0, 5.0)  # Deribit's extended table
OKX_MOVES = (-0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12, -0.24, -0.36, -0.50, 0.24, 0.36, 0.50)  # and extreme ones
OKX_BASES = (-0.30, -0.15, -0.05, 0.05, 0.15, 0.30)  # a year
DEPEGS = ((0.13, "as USDC on 11 March 2023 (press: .87)"), (0.35, "as USDe at Binance on 10 October 2025 (press: .65)"))
ADL_FALL, ADL_AT = -0.30, 0.5  # assumed: shorts are closed half way down
TOGETHER, SIGMAS = (0.0, 0.5, 1.0), 3.0  # w in (1 − w) C + w 11ᵀ, and how many standard deviations of a day
_LEAST_IV = 0.01
_BUMP = 1e-4


class Holdings(NamedTuple):
    """N contracts on U underlyings, settled in C currencies.

    amount [N] signed: coins, or USD of inverse contracts. forward [N] USD (in a stablecoin where it settles in one):
    a future's own price, an option's forward. iv [N] a year, NaN for futures; tau_years [N], 0 for perpetuals. spot [U]
    USD. equity [C] in the currency, options' worth and unrealised profit counted; price [C] USD. coin [C] is the
    underlying that a currency is, −1 for a stablecoin. backing [C] is the share of it that the venue counts.
    """

    underlyings: tuple[str, ...]
    names: tuple[str, ...]
    currencies: tuple[str, ...]
    underlying: IntArray
    settle: IntArray
    amount: FloatArray
    inverse: BoolArray
    option: BoolArray
    coin_quoted: BoolArray
    call: BoolArray
    perpetual: BoolArray
    strike: FloatArray
    forward: FloatArray
    iv: FloatArray
    tau_years: FloatArray
    spot: FloatArray
    coin: IntArray
    equity: FloatArray
    price: FloatArray
    backing: FloatArray

    @property
    def equity_usd(self) -> float:
        return float(self.equity @ self.price)


class Shocks(NamedTuple):
    """S of them: move, premium (of perpetuals), basis (a year) [S, U] as fractions; vol [S, U] as a share of a 30-day
    volatility; peg [S, C] what is left of a stablecoin's price; haircut [S]; adl [S] at what share of a fall shorts of
    futures are closed (1: never)."""

    move: FloatArray
    vol: FloatArray
    premium: FloatArray
    basis: FloatArray
    peg: FloatArray
    haircut: FloatArray
    adl: FloatArray


class Worth(NamedTuple):
    """After each shock: equity [S, C] in its currency, price [S, C] USD; gain [S, U] USD of contracts by underlying,
    coins [S, U] of collateral, pegs [S] of stablecoins held."""

    equity: FloatArray
    price: FloatArray
    gain: FloatArray
    coins: FloatArray
    pegs: FloatArray

    @property
    def loss(self) -> FloatArray:
        """[S] USD, positive is lost."""
        return np.asarray(-(self.gain.sum(axis=1) + self.coins.sum(axis=1) + self.pegs))


def shocks(book: Holdings, move: FloatArray, vol: FloatArray | float = 0.0, **more: FloatArray | float) -> Shocks:
    """Shocks [S] from a move [S, U] or [S, 1]; what is left out does not change."""
    s, u = len(move), len(book.underlyings)

    def each(name: str, width: int, default: float) -> FloatArray:
        return np.array(np.broadcast_to(np.asarray(more.get(name, default), dtype=np.float64), (s, width)))

    return Shocks(
        move=np.array(np.broadcast_to(move, (s, u)), dtype=np.float64),
        vol=np.array(np.broadcast_to(np.asarray(vol, dtype=np.float64), (s, u))),
        premium=each("premium", u, 0.0),
        basis=each("basis", u, 0.0),
        peg=each("peg", len(book.currencies), 1.0),
        haircut=each("haircut", 1, 0.0)[:, 0],
        adl=each("adl", 1, 1.0)[:, 0],
    )


def _forwards(book: Holdings, by: Shocks) -> FloatArray:
    """[S, N] after. A price quoted in a stablecoin rises as that falls."""
    u = book.underlying
    shift = np.where(book.perpetual, by.premium[:, u], by.basis[:, u] * book.tau_years)
    return np.asarray(book.forward * (1.0 + _moves(book, by)) * (1.0 + shift) / by.peg[:, book.settle])


def _moves(book: Holdings, by: Shocks) -> FloatArray:
    """[S, N] of the index as far as each contract is held: closed shorts see a part of a fall."""
    move = by.move[:, book.underlying]
    closed = (book.amount < 0.0) & ~book.option & (move < 0.0)
    return np.where(closed, by.adl[:, None] * move, move)


def _volatilities(book: Holdings, by: Shocks) -> FloatArray:
    """[S, N]."""
    weight = term_weight(book.tau_years * DAYS_PER_YEAR)
    return np.asarray(np.maximum(book.iv * (1.0 + by.vol[:, book.underlying] * weight), _LEAST_IV))


def _unit(book: Holdings, forward: FloatArray, iv: FloatArray) -> FloatArray:
    """[..., N] worth of one unit of amount in the settle currency, up to a constant."""
    unit = np.where(book.inverse, -1.0 / forward, forward)
    if (at := np.flatnonzero(book.option)).size:
        value = black.price(forward[..., at], book.strike[at], book.tau_years[at], iv[..., at], book.call[at])
        unit[..., at] = np.where(book.coin_quoted[at], value / forward[..., at], value)
    return np.asarray(unit)


def revalued(book: Holdings, by: Shocks) -> Worth:
    """The book after each of the shocks."""
    before = _unit(book, book.forward.copy(), book.iv)
    native = book.amount * (_unit(book, _forwards(book, by), _volatilities(book, by)) - before)  # [S, N]
    settles = np.eye(len(book.currencies))[book.settle]
    coin = book.coin >= 0
    moves = np.column_stack((by.move, np.zeros(len(by.move))))[:, book.coin]  # the last column is of what is no coin
    price = book.price * np.where(coin, 1.0 + moves, by.peg)
    usd = native * price[:, book.settle]
    change = book.equity * (price - book.price)
    u = len(book.underlyings)
    return Worth(
        equity=book.equity + native @ settles,
        price=price,
        gain=np.asarray(usd @ np.eye(u)[book.underlying]),
        coins=np.asarray(change[:, coin] @ np.eye(u)[book.coin[coin]]),
        pegs=np.asarray(change[:, ~coin].sum(axis=1)),
    )


def after(book: Holdings, by: Shocks, s: int = 0) -> Holdings:
    """The book as shock `s` leaves it."""
    one = Shocks(*(column[s : s + 1] for column in by))
    worth = revalued(book, one)
    fell = one.move[0, book.underlying] < 0.0
    gone = (book.amount < 0.0) & ~book.option & fell & (one.adl[0] < 1.0)
    held = book.coin >= 0
    return book._replace(
        amount=np.where(gone, 0.0, book.amount),
        forward=_forwards(book, one)[0],
        iv=np.where(book.option, _volatilities(book, one)[0], book.iv),
        spot=book.spot * (1.0 + one.move[0]),
        equity=worth.equity[0],
        price=worth.price[0],
        backing=np.where(held, book.backing * (1.0 - one.haircut[0]), book.backing),
    )


# --- the scenarios --------------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """Some points [S] of which the worst counts: each underlying at its own (`apart`), or one for all."""

    name: str
    title: str
    by: Shocks
    apart: bool = False
    source: str = ""


def scenarios(book: Holdings, annual_vol: FloatArray, correlation: FloatArray) -> list[Scenario]:
    """All of them. annual_vol [U], correlation [U, U] are of the days on which correlations break."""
    found = [
        Scenario("as_it_is", "as it is", shocks(book, np.zeros((1, 1)))),
        *_grids(book),
        *_days(book),
        *(_episode(book, episode) for episode in EPISODES),
        *_broken(book, annual_vol, correlation),
        *_depegs(book),
    ]
    if ((book.amount < 0.0) & ~book.option).any():
        by = shocks(book, np.full((1, 1), ADL_FALL), VOLS[0], adl=ADL_AT)
        text = f"all by {percent(ADL_FALL, 0, sign=True)}, shorts closed half way"
        found.append(Scenario("adl", text, by, source="assumed"))
    return found


def _grid(book: Holdings, moves: FloatArray, vols: FloatArray) -> Shocks:
    """Every move with every shock of volatility."""
    return shocks(book, np.repeat(moves, len(vols))[:, None], np.tile(vols, len(moves))[:, None])


def standard(book: Holdings) -> Shocks:
    """Deribit's standard portfolio margin [27]: ±16 % in nine steps, volatility up, the same and down."""
    return _grid(book, MOVES, VOLS)


def _grids(book: Holdings) -> list[Scenario]:
    bases = np.array(OKX_BASES)[:, None]
    still = np.zeros_like(bases)
    return [
        Scenario("deribit.standard", "Deribit's grid, ±16 %", standard(book), True, "Deribit, portfolio margin"),
        Scenario(
            "deribit.extended",
            "Deribit's extended grid, −66 to +500 %",
            _grid(book, np.array(EXTENDED), VOLS),
            True,
            "Deribit, portfolio margin; volatility's shocks as in the standard grid: assumed",
        ),
        Scenario(
            "okx.moves",
            "OKX's moves, ±12 %, extreme ±50 %",
            _grid(book, np.array(OKX_MOVES), VOLS),
            True,
            "OKX, portfolio margin, January 2025; volatility's shocks Deribit's: assumed",
        ),
        Scenario(
            "okx.basis",
            "OKX's basis, ±30 % a year",
            shocks(book, still, basis=bases),
            True,
            "OKX, portfolio margin, January 2025",
        ),
    ]


def _days(book: Holdings) -> list[Scenario]:
    moves = worst_days.moves(book.underlyings)
    return [
        Scenario(f"day.{day[0]}", f"{day[0]} again", shocks(book, move[None], VOLS[0]), source="pricing/worst_days.py")
        for day, move in zip(worst_days.DAYS, moves, strict=True)
    ]


def _episode(book: Holdings, of: Episode) -> Scenario:
    """Its worst, all at once."""
    peg = np.array([[1.0 - of.depeg.get(currency, 0.0) for currency in book.currencies]])
    by = shocks(
        book,
        worst(of, book.underlyings)[None],
        of.vol,
        premium=of.premium,
        basis=of.basis,
        peg=peg,
        haircut=of.haircut,
        adl=ADL_AT if of.adl is not None else 1.0,
    )
    source = "; ".join(f"{name}: {text}" for name, text in of.sources.items())
    return Scenario(f"episode.{of.name}", f"{of.title}, at once", by, source=source)


def _broken(book: Holdings, annual_vol: FloatArray, correlation: FloatArray) -> list[Scenario]:
    """The worst joint move of so many standard deviations of a day, correlations drawn to one, or gone."""
    if len(book.underlyings) < 2:
        return []
    found = []
    drawn = [(f"{w:g}", f"{w:g} of the way to 1", (1.0 - w) * correlation + w) for w in TOGETHER]
    for name, words, broken in (*drawn, ("none", "gone", np.eye(len(book.underlyings)))):
        move = worst_joint(book, annual_vol, broken)
        by = shocks(book, move, VOLS[0])
        source = "normal, a day; direction against the book's delta"
        found.append(Scenario(f"correlation.{name}", f"{SIGMAS:g} σ, correlations {words}", by, source=source))
    return found


def worst_joint(book: Holdings, annual_vol: FloatArray, correlation: FloatArray) -> FloatArray:
    """[1, U] the move m of mᵀΣ⁻¹m = SIGMAS² that costs the book's delta d most: −SIGMAS Σd/√(dᵀΣd)."""
    daily = annual_vol / np.sqrt(DAYS_PER_YEAR)
    sigma = correlation * np.outer(daily, daily)
    d = deltas(book)
    scale = np.sqrt(max(float(d @ sigma @ d), 0.0))
    move = -SIGMAS * (sigma @ d) / scale if scale > 0.0 else -SIGMAS * daily
    return np.asarray(np.maximum(move, -0.95)[None], dtype=np.float64)


def _depegs(book: Holdings) -> list[Scenario]:
    found = []
    for c in np.flatnonzero(book.coin < 0).tolist():
        name = book.currencies[c]
        if name == "USD":
            continue
        for lost, source in DEPEGS:
            peg = np.ones((1, len(book.currencies)))
            peg[0, c] -= lost
            by = shocks(book, np.zeros((1, 1)), peg=peg)
            found.append(Scenario(f"depeg.{name}.{lost:g}", f"{name} loses {percent(lost, 0)}", by, source=source))
    return found


# --- what is left ----------------------------------------------------------------------------------------------


class Hit(NamedTuple):
    """A limit of the configuration and what would be used of it; NaN is beyond every limit."""

    limit: str
    subject: str
    used: float
    allowed: float


class Pool(NamedTuple):
    """One settle currency's part: what it loses of its own equity, which is left after, and margin_use: the standard
    grid's worst loss of its contracts over that."""

    currency: str
    loss_usd: float
    equity_usd: float
    margin_use: float


class Outcome(NamedTuple):
    """One scenario: loss_usd, positive is lost; by underlying (collateral counted), and of stablecoins. `worst` is the
    underlying, or stablecoin, that loses most; margin_use the worst pool's. hits: limits beyond which the book would
    be."""

    name: str
    title: str
    source: str
    loss_usd: float
    loss_share: float
    parts_usd: dict[str, float]
    worst: str
    moves: dict[str, float]
    equity_usd: float
    margin_use: float
    pools: tuple[Pool, ...]
    hits: tuple[Hit, ...]


def outcome(book: Holdings, scenario: Scenario, guards: GuardParameters, *, pooled: bool = False) -> Outcome:
    """The scenario's worst point, and the limits there. Each settle currency backs its own contracts, or, `pooled`, all
    backs everything."""
    by = _worst_point(book, scenario)
    worth, left = revalued(book, by), after(book, by)
    parts = dict(zip(book.underlyings, (-(worth.gain + worth.coins)[0]).tolist(), strict=True))
    if worth.pegs[0]:
        parts["stablecoins"] = -float(worth.pegs[0])
    loss, before = float(worth.loss[0]), book.equity_usd
    of_pools = () if pooled else pools(book, left)
    use = margin_use(left) if pooled else max((pool.margin_use for pool in of_pools), default=0.0)
    return Outcome(
        name=scenario.name,
        title=scenario.title,
        source=scenario.source,
        loss_usd=loss,
        loss_share=loss / before if before > 0.0 else float("nan"),
        parts_usd=parts,
        worst=max(parts, key=lambda name: parts[name]) if max(parts.values(), default=0.0) > 0.0 else "",
        moves=dict(zip(book.underlyings, by.move[0].tolist(), strict=True)),
        equity_usd=left.equity_usd,
        margin_use=use,
        pools=of_pools,
        hits=hits(left, before, float(np.min(left.price[book.coin < 0], initial=1.0)), use, guards),
    )


def _worst_point(book: Holdings, scenario: Scenario) -> Shocks:
    """[1]: the point that loses most, or, apart, each underlying at its own."""
    by, worth = scenario.by, revalued(book, scenario.by)
    if not scenario.apart:
        s = int(np.argmax(worth.loss))
        return Shocks(*(column[s : s + 1] for column in by))
    point = np.argmin(worth.gain + worth.coins, axis=0)
    u = np.arange(len(point))
    own = {name: getattr(by, name)[point, u][None] for name in ("move", "vol", "premium", "basis")}
    return Shocks(**own, peg=by.peg[:1], haircut=by.haircut[:1], adl=by.adl[:1])


def deltas(book: Holdings) -> FloatArray:
    """[U] USD for a move of one, by a small one; coins held are counted."""
    up, down = (revalued(book, shocks(book, np.full((1, 1), move))) for move in (_BUMP, -_BUMP))
    return np.asarray((up.gain + up.coins - down.gain - down.coins)[0] / (2.0 * _BUMP))


def gammas(book: Holdings) -> FloatArray:
    """[U] change of dollar delta for 1 %, as contracts' values curve: USD."""
    step = 1e-3
    up, down = (revalued(book, shocks(book, np.full((1, 1), move))).gain[0] for move in (step, -step))
    return np.asarray((up + down) / step**2 / 100.0)


def vegas(book: Holdings) -> FloatArray:
    """[U] USD per vol point, weighted by term to 30 days."""
    at = np.flatnonzero(book.option)
    if not at.size:
        return np.zeros(len(book.underlyings))
    greeks = black.greeks(book.forward[at], book.strike[at], book.tau_years[at], book.iv[at], book.call[at])
    unit = np.where(book.coin_quoted[at], greeks.vega / book.forward[at], greeks.vega) * book.price[book.settle[at]]
    per_point = book.amount[at] * unit / 100.0 * term_weight(book.tau_years[at] * DAYS_PER_YEAR)
    found = np.bincount(book.underlying[at], weights=per_point, minlength=len(book.underlyings))
    return np.asarray(found, dtype=np.float64)


def notionals(book: Holdings) -> FloatArray:
    """[N] USD ≥ 0: face of inverse contracts, coins times the index for options and times the price for others."""
    price = np.where(book.option, book.spot[book.underlying], book.forward * book.price[book.settle])
    return np.asarray(np.abs(book.amount) * np.where(book.inverse, 1.0, price))


def pools(before: Holdings, left: Holdings) -> tuple[Pool, ...]:
    """Each currency that something is held or settles in, segregated as Deribit's are without cross-collateral."""
    then, now = before.equity * before.price, left.equity * left.price
    return tuple(
        Pool(currency, float(then[c] - now[c]), float(now[c]), margin_use(_pool(left, c)))
        for c, currency in enumerate(left.currencies)
        if then[c] != 0.0 or (before.settle == c).any()
    )


_ROWS = ("underlying", "settle", "amount", "inverse", "option", "coin_quoted", "call", "perpetual", "strike", "forward")


def _pool(book: Holdings, c: int) -> Holdings:
    """What settles in one currency, with that currency's equity alone."""
    at = np.flatnonzero(book.settle == c)
    rows = {name: getattr(book, name)[at] for name in (*_ROWS, "iv", "tau_years")}
    own = np.where(np.arange(len(book.currencies)) == c, book.equity, 0.0)
    return book._replace(names=tuple(book.names[n] for n in at.tolist()), equity=own, **rows)


def margin_use(book: Holdings) -> float:
    """The worst loss of contracts over Deribit's standard grid, over equity less haircuts, all in one pool. ∞ without
    anything that backs."""
    gain = revalued(book, standard(book)).gain
    need = float(np.maximum(-gain.min(axis=0, initial=0.0), 0.0).sum())
    backs = float(np.where(book.equity > 0.0, book.backing, 1.0) * book.equity @ book.price)
    if need == 0.0:
        return 0.0 if backs >= 0.0 else float("inf")
    return need / backs if backs > 0.0 else float("inf")


def hits(book: Holdings, equity_before_usd: float, peg: float, use: float, guards: GuardParameters) -> tuple[Hit, ...]:
    """The limits beyond which the book stands; `use` is of margin. NaN never passes."""
    return tuple(hit for hit in _uses(book, equity_before_usd, peg, use, guards) if not hit.used <= hit.allowed)


def _uses(book: Holdings, before_usd: float, peg: float, use: float, guards: GuardParameters) -> list[Hit]:
    equity = book.equity_usd
    usd, delta = notionals(book), np.abs(deltas(book))
    found = [Hit("gross", "book", float(usd.sum()), _cap(guards.max_gross_usd, guards.max_gross_leverage, equity))]
    of_each = (
        ("net", delta, _cap(guards.max_net_usd, guards.max_net_leverage, equity)),
        ("gamma", np.abs(gammas(book)), _cap(guards.max_gamma_usd_1pct)),
        ("vega", np.abs(vegas(book)), _cap(guards.max_vega_usd_1pt)),
        (
            "underlying",
            np.bincount(book.underlying, weights=usd, minlength=len(delta)),
            _cap(guards.max_underlying_usd, guards.max_underlying_leverage, equity),
        ),
    )
    found += [
        Hit(kind, name, used, cap)
        for kind, values, cap in of_each
        for name, used in zip(book.underlyings, values.tolist(), strict=True)
    ]
    cap = _cap(guards.max_instrument_usd, guards.max_instrument_leverage, equity)
    found += [Hit("instrument", name, used, cap) for name, used in zip(book.names, usd.tolist(), strict=True)]
    return found + _shares(book, before_usd, peg, use, guards)


def _cap(usd: float | None, leverage: float | None = None, equity: float = 0.0) -> float:
    """USD allowed, or as many times equity, whichever is less; ∞ where neither is told."""
    absolute = np.inf if usd is None else usd
    return float(absolute if leverage is None else min(absolute, max(leverage * equity, 0.0)))


def _shares(book: Holdings, before_usd: float, peg: float, use: float, guards: GuardParameters) -> list[Hit]:
    """Limits in parts of equity: what is lost, what would be, margin, pegs."""
    equity, lost = book.equity_usd, 0.0
    lost = 1.0 - equity / before_usd if before_usd > 0.0 else 1.0
    left = equity if equity > 0.0 else np.nan
    grid, days = revalued(book, standard(book)), worst_days.moves(book.underlyings)
    least = (grid.gain + grid.coins).min(axis=0, initial=0.0)
    history = revalued(book, shocks(book, days, VOLS[0])).loss if len(book.underlyings) else np.zeros(1)
    told: tuple[tuple[str, float, float | None], ...] = (
        ("scenario", float(np.maximum(-least, 0.0).sum() / left), guards.max_scenario_loss),
        ("stress", float(max(history.max(), 0.0) / left), guards.max_stress_loss),
        ("margin", use, guards.max_margin_use),
        ("margin danger", use, guards.max_margin_danger),
        ("daily loss", lost, guards.max_daily_loss),
        ("daily loss, flatten", lost, guards.flatten_daily_loss),
        ("daily loss, halt", lost, guards.halt_daily_loss),
        ("drawdown", lost, guards.max_drawdown),
        ("drawdown, flatten", lost, guards.flatten_drawdown),
        ("drawdown, halt", lost, guards.halt_drawdown),
        ("depeg", 1.0 - peg, guards.max_depeg),
    )
    return [Hit(name, "book", used, float(allowed)) for name, used, allowed in told if allowed is not None]
