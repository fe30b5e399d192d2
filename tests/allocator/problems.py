"""Problems for the solver: plain ones, and every way we know of to make one hard. A seed makes always the same.

A problem begins as a `Sketch` around a point `inside` its box; twists then spoil it, one after the other. Whatever they
do, `inside` stays within all rows and gross limits, unless a twist is one of `HOPELESS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np

from dea_daemon.allocator.problem import Problem
from dea_daemon.domain.instruments import FloatArray

Dice = np.random.Generator
FIELDS = tuple(f.name for f in fields(Problem))


@dataclass
class Sketch:
    """What becomes a Problem: its columns, and rows (direction [n], lower, upper, price)."""

    inside: FloatArray
    mu: FloatArray
    B: FloatArray
    omega: FloatArray
    d: FloatArray
    cost: FloatArray
    x0: FloatArray
    lower: FloatArray
    upper: FloatArray
    rows: list[tuple[FloatArray, float, float, float]] = field(default_factory=list)
    gross: list[tuple[FloatArray, float]] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.mu)

    def problem(self) -> Problem:
        n, m = self.n, len(self.rows)
        g_lower, g_upper, price = (np.array([row[k] for row in self.rows]).reshape(m) for k in (1, 2, 3))
        return Problem(
            mu=self.mu,
            B=self.B,
            omega=self.omega,
            d=self.d,
            cost=self.cost,
            x0=self.x0,
            lower=self.lower,
            upper=self.upper,
            G=np.array([row[0] for row in self.rows]).reshape(m, n),
            g_lower=g_lower,
            g_upper=g_upper,
            row_price=price,
            gross=np.array([weights for weights, _ in self.gross]).reshape(len(self.gross), n),
            gross_limit=np.array([limit for _, limit in self.gross]),
        )


def sketch(dice: Dice, n: int) -> Sketch:
    """Everything of order one: n positions, some factors, a few rows around a point of the box."""
    k = int(dice.integers(0, min(n, 8) + 1))
    root = dice.normal(size=(k, k)) / max(1.0, np.sqrt(k))
    width = dice.exponential(1.0, (2, n)) + 0.05
    middle = dice.normal(0.0, 0.5, n)
    lower, upper = middle - width[0], middle + width[1]
    inside = lower + (upper - lower) * dice.random(n)
    made = Sketch(
        inside=inside,
        mu=dice.normal(0.0, 1.0, n),
        B=dice.normal(size=(n, k)),
        omega=root @ root.T,
        d=dice.lognormal(-1.0, 1.0, n),
        cost=dice.lognormal(-2.0, 1.0, n),
        x0=lower + (upper - lower) * dice.random(n),
        lower=lower,
        upper=upper,
    )
    for _ in range(int(dice.integers(0, 6))):
        add_row(dice, made, dice.normal(size=n))
    return made


def add_row(dice: Dice, made: Sketch, direction: FloatArray, price: float = np.inf) -> None:
    """A row that holds at `inside`: two-sided, or open at one side."""
    at = float(direction @ made.inside)
    size = float(np.abs(direction).sum()) / np.sqrt(made.n)
    below, above = at - size * dice.exponential(0.3), at + size * dice.exponential(0.3)
    side = dice.integers(0, 4)
    made.rows.append((direction, -np.inf if side == 0 else below, np.inf if side == 1 else above, price))


# --- twists: each keeps `inside` where it may be ---------------------------------------------------------------


def x0_outside(dice: Dice, made: Sketch) -> None:
    made.x0 = made.x0 + dice.normal(0.0, 5.0, made.n) * (dice.random(made.n) < 0.5)


def x0_flat(_: Dice, made: Sketch) -> None:
    made.x0 = np.zeros(made.n)


def x0_at_the_edge(dice: Dice, made: Sketch) -> None:
    made.x0 = np.where(dice.random(made.n) < 0.5, made.lower, made.upper)
    made.x0 = np.where(np.isfinite(made.x0), made.x0, 0.0)


def some_d_zero(dice: Dice, made: Sketch) -> None:
    made.d = made.d * (dice.random(made.n) < 0.5)


def no_d(_: Dice, made: Sketch) -> None:
    made.d = np.zeros(made.n)


def tiny_d(dice: Dice, made: Sketch) -> None:
    made.d = made.d * 10.0 ** dice.uniform(-12.0, -3.0, made.n)


def no_cost(_: Dice, made: Sketch) -> None:
    made.cost = np.zeros(made.n)


def dear(dice: Dice, made: Sketch) -> None:
    """Trading costs more than it can bring, for most."""
    made.cost = made.cost * 10.0 ** dice.uniform(0.0, 3.0, made.n)


def twins(dice: Dice, made: Sketch) -> None:
    """Pairs of contracts with one risk and nearly no difference but cost: a perpetual and a dated future."""
    for i in range(1, made.n, 2):
        made.B[i] = made.B[i - 1]
        made.mu[i] = made.mu[i - 1] + 1e-3 * dice.normal()
        made.d[i - 1 : i + 1] *= 1e-6


def equal(_: Dice, made: Sketch) -> None:
    """Nothing tells one contract from another: many answers, one objective."""
    for column in (made.mu, made.cost, made.d):
        column[:] = column[0]
    made.B[:] = made.B[0]


def whole_numbers(_: Dice, made: Sketch) -> None:
    """Kinks, bounds and rows meet in corners."""
    made.mu, made.x0, made.B = np.round(made.mu), np.round(made.x0), np.round(made.B)
    made.cost, made.d = np.ceil(made.cost), np.ceil(made.d)
    made.lower, made.upper = np.floor(made.lower), np.ceil(made.upper)
    made.inside = np.clip(np.round(made.inside), made.lower, made.upper)
    made.gross.clear()
    directions = [(np.round(row), price) for row, _, _, price in made.rows]
    made.rows = [(row, float(row @ made.inside) - 1.0, float(row @ made.inside), price) for row, price in directions]


def low_rank(dice: Dice, made: Sketch) -> None:
    """Factors that move together, and one that never moves."""
    k = len(made.omega)
    if k:
        weights = dice.normal(size=(k, 1))
        weights[0] = 0.0
        made.omega = weights @ weights.T


def uneven(dice: Dice, made: Sketch) -> None:
    """Factors from 1e-4 to 1e4 in size."""
    stretch = 10.0 ** dice.uniform(-2.0, 2.0, len(made.omega))
    made.omega = made.omega * np.outer(stretch, stretch)


def no_factors(_: Dice, made: Sketch) -> None:
    made.B, made.omega = np.zeros((made.n, 0)), np.zeros((0, 0))


def no_rows(_: Dice, made: Sketch) -> None:
    made.rows.clear()


def duplicate_rows(dice: Dice, made: Sketch) -> None:
    """The same row again, turned round, stretched, and empty."""
    for direction, low, high, price in list(made.rows):
        stretch = float(10.0 ** dice.uniform(-3.0, 3.0))
        made.rows.append((direction.copy(), low, high, price))
        made.rows.append((-direction * stretch, -high * stretch, -low * stretch, price))
    made.rows.append((np.zeros(made.n), -1.0, 1.0, np.inf))


def parallel_rows(dice: Dice, made: Sketch) -> None:
    for direction, *_ in list(made.rows):
        add_row(dice, made, direction + 1e-7 * dice.normal(size=made.n))


def many_rows(dice: Dice, made: Sketch) -> None:
    """More of them than positions: most corners have too many."""
    for _ in range(min(2 * made.n + 2, 40)):
        add_row(dice, made, dice.normal(size=made.n) * (dice.random(made.n) < 0.5))


def single_rows(dice: Dice, made: Sketch) -> None:
    """Rows of one position each: a box within the box."""
    for i in dice.permutation(made.n)[:5]:
        add_row(dice, made, np.eye(made.n)[i] * dice.lognormal(0.0, 2.0))


def equality_rows(dice: Dice, made: Sketch) -> None:
    for _ in range(min(3, made.n)):
        direction = dice.normal(size=made.n)
        made.rows.append((direction, float(direction @ made.inside), float(direction @ made.inside), np.inf))


def neutral(dice: Dice, made: Sketch) -> None:
    """Sums of groups that must be what they are: rows of ones."""
    members = dice.random(made.n) < 0.5
    at = float(members @ made.inside)
    made.rows.append((members.astype(np.float64), at, at, np.inf))


def fixed(dice: Dice, made: Sketch) -> None:
    """Positions that may not be anything else."""
    chosen = dice.random(made.n) < 0.4
    made.lower = np.where(chosen, made.inside, made.lower)
    made.upper = np.where(chosen, made.inside, made.upper)


def unbounded(dice: Dice, made: Sketch) -> None:
    """Boxes open at one side or both; variance keeps them finite."""
    made.d = made.d + 1e-3
    made.lower = np.where(dice.random(made.n) < 0.6, -np.inf, made.lower)
    made.upper = np.where(dice.random(made.n) < 0.6, np.inf, made.upper)


def soft_rows(dice: Dice, made: Sketch) -> None:
    """Bands as the target law has them: narrow, some of them out of reach, each with its price."""
    for _ in range(int(dice.integers(1, 5))):
        direction, price = dice.normal(size=made.n), float(10.0 ** dice.uniform(-2.0, 2.0))
        aim, half = dice.normal(0.0, 3.0), dice.exponential(0.1) * dice.integers(0, 2)
        made.rows.append((direction, aim - half, aim + half, price))


def gross(dice: Dice, made: Sketch) -> None:
    """Limits on weighted sums of |x| that `inside` meets, one of them exactly."""
    for k in range(int(dice.integers(1, 4))):
        weights = np.ones(made.n) if k == 0 else dice.exponential(1.0, made.n) * (dice.random(made.n) < 0.7)
        made.gross.append((weights, float(weights @ np.abs(made.inside)) * (1.0 + k * dice.exponential(0.3))))


# --- twists that make it impossible ----------------------------------------------------------------------------


def contradicting_rows(dice: Dice, made: Sketch) -> None:
    direction = dice.normal(size=made.n)
    at, size = float(direction @ made.inside), float(np.abs(direction).sum())
    made.rows += [(direction, at + size, np.inf, np.inf), (direction, -np.inf, at - size, np.inf)]


def row_out_of_reach(dice: Dice, made: Sketch) -> None:
    """Further than the box goes; x0 may be on the wrong side, too."""
    made.lower, made.upper = np.maximum(made.lower, -10.0), np.minimum(made.upper, 10.0)
    direction = dice.normal(size=made.n)
    furthest = float(np.maximum(direction * made.lower, direction * made.upper).sum())
    made.rows.append((direction, furthest + 0.5, np.inf, np.inf))


def gross_out_of_reach(_: Dice, made: Sketch) -> None:
    """What must be held is already more than may be."""
    made.lower = np.maximum(made.lower, 0.0) + 1.0
    made.upper = np.maximum(made.upper, made.lower + 1.0)
    made.gross.append((np.ones(made.n), 0.5 * float(made.lower.sum())))


Twist = Callable[[Dice, Sketch], None]
TWISTS: tuple[Twist, ...] = (
    x0_outside,
    x0_flat,
    some_d_zero,
    no_d,
    tiny_d,
    no_cost,
    dear,
    twins,
    equal,
    whole_numbers,
    low_rank,
    uneven,
    no_factors,
    no_rows,
    duplicate_rows,
    parallel_rows,
    many_rows,
    single_rows,
    equality_rows,
    neutral,
    fixed,
    unbounded,
    x0_at_the_edge,
    soft_rows,
    gross,
)
HOPELESS: tuple[Twist, ...] = (contradicting_rows, row_out_of_reach, gross_out_of_reach)


def sized(dice: Dice) -> int:
    """1 to 60 positions, often few; now and then 200."""
    return 200 if dice.random() < 0.005 else int(np.ceil(60.0 ** dice.random()))


def spoiled(seed: int, *twists: Twist, n: int | None = None) -> Problem:
    """A problem with these twists, in their order."""
    dice = np.random.default_rng(seed)
    made = sketch(dice, sized(dice) if n is None else n)
    for twist in twists:
        twist(dice, made)
    return made.problem()


@dataclass(frozen=True)
class Case:
    """A problem, what was done to it, and a book within all its limits."""

    problem: Problem
    name: str
    inside: FloatArray


def any_of_them(seed: int) -> Case:
    """A problem with up to four twists, every third one in other units."""
    dice = np.random.default_rng([seed, 1])
    chosen = np.sort(dice.choice(len(TWISTS), int(dice.integers(0, 5)), replace=False))
    made = sketch(dice, sized(dice))
    for k in chosen:  # in the order of the table: late ones build on what early ones changed
        TWISTS[k](dice, made)
    name = f"{seed}: n = {made.n}, " + (" ".join(TWISTS[k].__name__ for k in chosen) or "plain")
    if dice.random() > 1 / 3:
        return Case(made.problem(), name, made.inside)
    unit, money = (float(10.0 ** dice.uniform(-6.0, 9.0)) for _ in range(2))
    units = f", in units of {unit:.0e} and {money:.0e}"
    return Case(in_units(made.problem(), unit, money), name + units, made.inside * unit)


def in_units(problem: Problem, unit: float, money: float) -> Problem:
    """The same problem: positions counted in units so much smaller, the objective in money so much smaller."""
    q = problem
    return Problem(
        mu=q.mu * money / unit,
        B=q.B,
        omega=q.omega * money / unit**2,
        d=q.d * money / unit**2,
        cost=q.cost * money / unit,
        x0=q.x0 * unit,
        lower=q.lower * unit,
        upper=q.upper * unit,
        G=q.G,
        g_lower=q.g_lower * unit,
        g_upper=q.g_upper * unit,
        row_price=q.row_price * money / unit,
        gross=q.gross,
        gross_limit=q.gross_limit * unit,
    )
