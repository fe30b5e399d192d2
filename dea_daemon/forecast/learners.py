"""Forecasts of each underlying's return over a day and over five, sampled every `learners.every_s`; scored, combined.

zero; prior: a constant from `prior_sharpe`; carry: what the perpetuals earn held long, as if the price did the same;
momentum: returns of 1, 4 and 12 weeks in standard deviations, capped (Moskowitz, Ooi and Pedersen 2012); ridge: least
squares on all features, recursively, with forgetting; trees, where they are enabled: boosted, of all underlyings at
once, grown aside (`FitModel`) and swapped whole (`ModelFitted`). A forecast made at t has its outcome at t + horizon,
and is learned from and scored then, not before. All is in standard deviations of the horizon as forecast at t.
"""

import numpy as np

from dea_daemon.domain.commands import FitModel
from dea_daemon.domain.decisions import Contender, Forecaster, View
from dea_daemon.domain.events import ModelFitted
from dea_daemon.domain.instruments import BoolArray, FloatArray, Universe
from dea_daemon.domain.numbers import DAYS_PER_YEAR, NS_PER_DAY, NS_PER_S
from dea_daemon.domain.parameters import LearnerParameters
from dea_daemon.forecast import features, trees, trial
from dea_daemon.forecast.combine import capped, first_weights, shared
from dea_daemon.forecast.scores import Scores

LEARNERS = ("zero", "prior", "carry", "momentum", "ridge")
TREES = "trees"  # behind them, where enabled
HORIZON_DAYS = (1.0, 5.0)
FORECASTERS = tuple(f"{learner}_{days:g}d" for days in HORIZON_DAYS for learner in LEARNERS)
LEAST_LESSONS = 200  # fewer are not worth a question
AGAIN_DAYS = 1.0  # after one that brought no trees
MOMENTUM_DAYS, MOMENTUM_MOST, MOMENTUM_SHARPE = (7.0, 28.0, 84.0), 2.0, 0.5  # a year, where all are at 1
RIDGE = 400.0  # horizons: 1/.05², so that a feature at 1 is thought to move the mean by .05 standard deviations
OUTCOME_MOST = 4.0  # standard deviations: an outcome further out teaches and scores as this
SAID_MOST = 0.5  # nobody foresees more of a horizon than this


class Horizon:
    """One horizon: what was asked and said in the last `steps` samples, row s % (steps + 1), and what was learned.

    asked [rows, U, K], said [rows, M, U], vol [rows, U] 1/√day, NaN where nothing was. beta [U, K] are ridge's weights,
    spread [U, K, K] the inverse of its normal equations; weights [M] the combination's. `forest` are the trees in use,
    None until there are some; `asked_utc_ns` and `due_ns` are of the question for the next ones, 0: none is open.
    `trading` [M] are the weights that traded, and `champion` their name, when `trial_slot` was said, which the trial
    will judge.
    """

    def __init__(self, days: float, steps: int, underlyings: int, roster: tuple[str, ...]) -> None:
        u, k, m = underlyings, 1 + 2 * len(features.NAMES), len(roster)
        self.name, self.days, self.steps = f"{days:g}d", days, steps
        self.asked, self.said = np.zeros((steps + 1, u, k)), np.zeros((steps + 1, m, u))
        self.vol: FloatArray = np.full((steps + 1, u), np.nan)
        self.beta, self.spread = np.zeros((u, k)), np.tile(np.eye(k) / RIDGE, (u, 1, 1))
        self.weights = first_weights(m)
        self.scores = Scores(steps, m, u)
        self.book = trees.LessonBook(u, k) if TREES in roster else None
        self.forest: trees.Forest | None = None
        self.asked_utc_ns, self.due_ns = 0, 0
        self.trading, self.champion, self.trial_slot = np.zeros(m), "", -1
        self.stood: FloatArray = np.zeros((m, u))  # what each would have held since its last trial, Kelly's

    def widen(self, more: int) -> None:
        """So many regressors more, behind the others; in all that was asked before they were 0."""
        u, k = self.beta.shape
        self.asked = np.pad(self.asked, ((0, 0), (0, 0), (0, more)))
        if self.book is not None:
            self.book.widen(more)
        self.beta = np.pad(self.beta, ((0, 0), (0, more)))
        spread = np.tile(np.eye(k + more) / RIDGE, (u, 1, 1))
        spread[:, :k, :k] = self.spread
        self.spread = spread

    def forget(self, whose: BoolArray) -> None:
        """Ridge begins anew for these underlyings [U]: its numbers are none, and would never be one again."""
        self.beta[whose] = 0.0
        self.spread[whose] = np.eye(self.beta.shape[1]) / RIDGE


class LearnerMemory:
    """Everything learned of U underlyings; `told` are the forecasters' words at `told_ns` (0: a decision has yet to
    hear them), the next is due at `due_ns`. `slow` names the slow factors that have a weight in ridge, behind all
    others. `roster` names the M learners; `trial` is shared with what else is on trial."""

    def __init__(self, underlyings: int, memory: trial.TrialMemory | None = None) -> None:
        self.underlyings = underlyings
        self.trial = memory or trial.TrialMemory()
        self.begin(LearnerParameters())

    def begin(self, params: LearnerParameters) -> None:
        """Know nothing, on the grid of these parameters."""
        u, step_days = self.underlyings, params.every_s * NS_PER_S / NS_PER_DAY
        self.every_s = params.every_s
        self.roster = roster(params)
        self.past = features.Past(u, step_days)
        self.ever = np.zeros((len(features.NAMES), u), dtype=np.bool_)
        self.horizons = [Horizon(days, self.past.slots(days), u, self.roster) for days in HORIZON_DAYS]
        self.told: tuple[Forecaster, ...] = ()
        self.contenders: tuple[Contender, ...] = ()
        self.told_ns, self.due_ns = 0, 0
        self.slow: tuple[str, ...] = ()


def roster(params: LearnerParameters) -> tuple[str, ...]:
    """The learners there are."""
    return (*LEARNERS, TREES) if params.trees.enabled else LEARNERS


def _others(memory: LearnerMemory, params: LearnerParameters) -> bool:
    """Whether these parameters want another grid or other learners: all begins anew."""
    return params.every_s != memory.every_s or roster(params) != memory.roster


def due(memory: LearnerMemory, now_ns: int, params: LearnerParameters) -> bool:
    """Whether the grid's next point has come."""
    return now_ns >= memory.due_ns or _others(memory, params)


def observe(
    memory: LearnerMemory,
    now_ns: int,
    price: FloatArray,
    variance: FloatArray,
    view: View | None,
    earned: FloatArray,
    params: LearnerParameters,
    utc_ns: int = 0,
) -> None:
    """One sample: outcomes that are known now are learned from and scored, then all forecast anew.

    `price` [U] USD, NaN where unknown; `variance` [U] 1/day as known now; `earned` [U] 1/day, carry, NaN where unknown.
    `utc_ns` 0: the past is only learned from, nobody is on trial for it.
    """
    if _others(memory, params):
        memory.begin(params)
    every_ns = round(params.every_s * NS_PER_S)
    past, slot = memory.past, now_ns // every_ns
    memory.due_ns = (slot + 1) * every_ns
    skipped = slot - past.slot - 1 if past.slot >= 0 else 0
    past.add(slot, np.where((price > 0.0) & np.isfinite(price), price, np.nan))
    vol = np.sqrt(variance)
    told = features.values(past, vol, view, earned)
    x = np.hstack([features.regressors(told, memory.ever), _slow(memory, view)])
    memory.ever |= np.isfinite(told)
    trend = momentum(past, vol)
    for horizon in memory.horizons:
        horizon.scores.pass_over(skipped)  # unsampled slots have no price: what was said then, or for then, no outcome
        _mature(horizon, past, params)
        if utc_ns:
            _try(memory, horizon, utc_ns, params)
        row = slot % (horizon.steps + 1)
        horizon.asked[row], horizon.vol[row] = x, np.where(np.isfinite(past.back(0)), vol, np.nan)
        said = _said(horizon, vol, x, trend, earned, params, memory.roster)
        horizon.said[row] = np.where(np.isfinite(horizon.vol[row]) & np.isfinite(said), said, 0.0)
        horizon.forget(~np.isfinite(said[LEARNERS.index("ridge")]))
        if utc_ns and past.slot % horizon.steps == 0:
            horizon.trading, horizon.trial_slot = weights(memory, params)[memory.horizons.index(horizon)], past.slot
            horizon.champion = _champion(memory, horizon, params)


def _slow(memory: LearnerMemory, view: View | None) -> FloatArray:
    """[U, S] slow factors in standard deviations, 0 where one is not known. New ones are given a weight to learn; those
    that are no longer told keep theirs."""
    here = {} if view is None else dict(zip(view.slow.names, view.slow.z.tolist(), strict=True))
    new = tuple(name for name in here if name not in memory.slow)
    memory.slow += new
    for horizon in memory.horizons if new else ():
        horizon.widen(len(new))
    z = np.array([here.get(name, 0.0) for name in memory.slow])
    bounded = np.clip(np.where(np.isfinite(z), z, 0.0), -features.MOST, features.MOST)
    return np.tile(bounded, (memory.underlyings, 1))


def _mature(horizon: Horizon, past: features.Past, params: LearnerParameters) -> None:
    """What was said a horizon ago has its outcome now, where both prices are known."""
    row = (past.slot - horizon.steps) % (horizon.steps + 1)
    moved = past.back(0) - past.back(horizon.steps)
    outcome = np.clip(moved / (horizon.vol[row] * np.sqrt(horizon.days)), -OUTCOME_MOST, OUTCOME_MOST)
    said, part = horizon.said[row], past.step_days / horizon.days
    horizon.scores.add(said, outcome)
    horizon.weights = shared(horizon.weights, said, outcome, part, past.step_days)
    kept = 0.5 ** (past.step_days / params.half_life_days)
    _learn(horizon, horizon.asked[row], outcome, kept, part)
    if horizon.book is not None:
        horizon.book.add(horizon.asked[row], outcome, past.slot * past.step_days)


def _learn(horizon: Horizon, x: FloatArray, outcome: FloatArray, kept: float, part: float) -> None:
    """Recursive least squares: an outcome [U] of x [U, K] counts as `part` of one, all before as `kept` of what it did.

    No weight is ever less certain than at the start (so the trace is capped, too): a feature that slept for long would
    else be believed at its first outcome. Where there is no outcome nothing changes. Source: Ljung (1999), ch. 11.
    """
    known = np.isfinite(outcome)
    if not known.any():
        return
    x, y, spread = x[known], outcome[known], horizon.spread[known]
    reached = np.einsum("ukl,ul->uk", spread, x)
    gain = reached / (kept / part + np.einsum("uk,uk->u", x, reached))[:, None]
    horizon.beta[known] += gain * (y - np.einsum("uk,uk->u", x, horizon.beta[known]))[:, None]
    spread = (spread - gain[:, :, None] * reached[:, None, :]) / kept
    spread = 0.5 * (spread + spread.transpose(0, 2, 1))
    shrink = np.sqrt(np.minimum(1.0, 1.0 / RIDGE / np.diagonal(spread, axis1=1, axis2=2)))
    horizon.spread[known] = spread * shrink[:, :, None] * shrink[:, None, :]


def _said(
    horizon: Horizon,
    vol: FloatArray,
    x: FloatArray,
    trend: FloatArray,
    earned: FloatArray,
    params: LearnerParameters,
    names: tuple[str, ...],
) -> FloatArray:
    """[M, U] in standard deviations of the horizon, each learner in the order of the roster."""
    a_sharpe = np.sqrt(horizon.days / DAYS_PER_YEAR)
    carry = np.where(np.isfinite(earned), earned, 0.0) * np.sqrt(horizon.days) / vol
    said = [
        np.zeros(len(vol)),
        np.full(len(vol), params.prior_sharpe * a_sharpe),
        carry,
        trend * MOMENTUM_SHARPE * a_sharpe,
        np.einsum("uk,uk->u", x, horizon.beta),
    ]
    if TREES in names:
        said.append(np.zeros(len(vol)) if horizon.forest is None else trees.said(horizon.forest, x))
    return np.asarray(np.clip(said, -SAID_MOST, SAID_MOST))


def momentum(past: features.Past, vol: FloatArray) -> FloatArray:
    """[U] mean of the known returns of 1, 4 and 12 weeks in standard deviations, each capped; 0 where none is known."""
    scaled = np.array([features.scaled_return(past, vol, days) for days in MOMENTUM_DAYS])
    known = np.isfinite(scaled)
    total = np.clip(np.where(known, scaled, 0.0), -MOMENTUM_MOST, MOMENTUM_MOST).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1))


# --- trees, grown aside ------------------------------------------------------------------------------------------


def asked(memory: LearnerMemory, now_ns: int, utc_ns: int, params: LearnerParameters) -> FitModel | None:
    """The question that is due, if one is: one horizon at a time, and never while its last answer is awaited."""
    if TREES not in memory.roster or memory.past.slot < 0:
        return None
    for horizon in memory.horizons:
        if horizon.book is None or now_ns < horizon.due_ns or np.isfinite(horizon.book.y).sum() < LEAST_LESSONS:
            continue
        horizon.asked_utc_ns = utc_ns
        horizon.due_ns = now_ns + round(params.trees.answer_s * NS_PER_S)
        return FitModel(f"{TREES}_{horizon.name}", utc_ns, horizon.book.lessons(horizon.days))
    return None


def fitted(memory: LearnerMemory, event: ModelFitted, params: LearnerParameters) -> None:
    """Swap the trees, or keep the last and say why. What was not asked for, or answers another question, is nothing."""
    horizon = next((each for each in memory.horizons if f"{TREES}_{each.name}" == event.name), None)
    if horizon is None or not event.asked_utc_ns or horizon.asked_utc_ns != event.asked_utc_ns:
        return
    why = event.why or trees.flaw(event.trees, horizon.beta.shape[1])
    horizon.asked_utc_ns = 0
    horizon.due_ns = event.ts_recv_ns + round((AGAIN_DAYS if why else params.trees.every_days) * NS_PER_DAY)
    if why:
        memory.trial.note("model.refused", event.name, why=why)
        return
    horizon.forest = trees.compiled(event.trees)
    count = len(horizon.forest.leaf)
    memory.trial.note("model.swapped", event.name, trees=count, lessons=event.lessons, gain=event.gain)


# --- on trial ----------------------------------------------------------------------------------------------------


def _try(memory: LearnerMemory, horizon: Horizon, utc_ns: int, params: LearnerParameters) -> None:
    """What was said a horizon ago has an outcome that overlaps with no other trial's; of weights that trade no more it
    says nothing."""
    past, names, champion = memory.past, memory.roster, _champion(memory, horizon, params)
    if past.slot % horizon.steps or horizon.trial_slot != past.slot - horizon.steps or horizon.champion != champion:
        return
    row = horizon.trial_slot % (horizon.steps + 1)
    scale = horizon.vol[row] * np.sqrt(horizon.days)
    came = np.clip((past.back(0) - past.back(horizon.steps)) / scale, -OUTCOME_MOST, OUTCOME_MOST)
    said, w = horizon.said[row], horizon.trading
    traded, given = w @ said, offers(memory, params)
    lost = trial.loss(traded, came)
    gains = _gains(horizon, said, came, scale, params.trial.cost_bp * 1e-4)
    rounds, offered = {}, {}
    for m in range(1, len(names)):
        name = f"{names[m]}_{horizon.name}"
        if w[m] == 0.0:
            offered[name] = given.get(name, 0.0)
        rounds[name] = trial.Round(
            lost,
            trial.loss(traded + offered.get(name, 0.0) * said[m], came),
            trial.loss(traded - w[m] * said[m], came),
            trial.loss(said[m], came) if said[m].any() else np.nan,  # who says nothing waits: zeros are no usual size
            trial.loss(np.zeros_like(came), came),
            float(gains[m]),
        )
    trial.hear(memory.trial, horizon.name, champion, rounds, offered, level(memory, params), utc_ns, params.trial)


def _gains(horizon: Horizon, said: FloatArray, came: FloatArray, scale: FloatArray, cost: float) -> FloatArray:
    """[M] mean over the underlyings of what Kelly's position on each word made, less what it costs to move there."""
    with np.errstate(invalid="ignore", divide="ignore"):
        stand = np.where(np.isfinite(scale) & (scale > 0.0), said / scale, horizon.stood)
    paid = np.abs(stand - horizon.stood) * cost
    horizon.stood = stand
    return np.asarray((said * np.where(np.isfinite(came), came, 0.0) - paid).mean(axis=1))


def _champion(memory: LearnerMemory, horizon: Horizon, params: LearnerParameters) -> str:
    """What trades, in words: by it tracks are known to be against the same."""
    if params.combine == "hedge":
        return "hedge"
    w = weights(memory, params)[memory.horizons.index(horizon)]
    return " ".join(f"{name}:{share:g}" for name, share in zip(memory.roster, w, strict=True) if share > 0.0)


def level(memory: LearnerMemory, params: LearnerParameters) -> float:
    """Of one contender's trial: the level of all, divided among them."""
    return params.trial.significance / (len(memory.horizons) * (len(memory.roster) - 1) + trial.RIVALS)


def offers(memory: LearnerMemory, params: LearnerParameters) -> dict[str, float]:
    """The weight that each forecaster without one would be given."""
    if params.combine == "hedge":
        return {}
    w = weights(memory, params)
    room = max(1.0 - float(w.sum()), 0.0)
    names = [[f"{name}_{horizon.name}" for name in memory.roster] for horizon in memory.horizons]
    flat = zip(np.ravel(names).tolist(), w.ravel().tolist(), strict=True)
    return {name: min(params.trial.promoted_weight, room) for name, share in flat if share == 0.0}


def room(memory: LearnerMemory, params: LearnerParameters) -> dict[str, float]:
    """The most weight each forecaster may be given: what the others leave."""
    w = weights(memory, params)
    names = [f"{name}_{horizon.name}" for horizon in memory.horizons for name in memory.roster]
    left = 1.0 - (w.sum() - w.ravel())
    return {name: float(most) for name, most in zip(names, left, strict=True) if not name.startswith("zero")}


# --- what is traded, and what is told ----------------------------------------------------------------------------


def weights(memory: LearnerMemory, params: LearnerParameters) -> FloatArray:
    """[H, M] what each forecast counts in what is traded: the operator's weights, or the combination's own; but of
    what was ruled on, what was ruled. Together at most 1."""
    hedge = params.combine == "hedge"
    w = np.zeros((len(memory.horizons), len(memory.roster)))
    for h, horizon in enumerate(memory.horizons):
        for m, learner in enumerate(memory.roster):
            name = f"{learner}_{horizon.name}"
            given = horizon.weights[m] / len(w) if hedge else params.weights.get(name, 0.0)  # type: ignore[call-overload]
            ruled = memory.trial.standings.get(name)
            w[h, m] = given if ruled is None else min(given, ruled.weight) if hedge else ruled.weight
    return w / max(float(w.sum()), 1.0)


def signals(memory: LearnerMemory, params: LearnerParameters) -> tuple[FloatArray, FloatArray]:
    """(return [S, U] 1/day, decay [S] 1/day): a signal for each horizon that has weight, capped; else none."""
    w = weights(memory, params)
    used = np.flatnonzero(w.any(axis=1)) if memory.past.slot >= 0 else np.zeros(0, dtype=np.int64)
    if not len(used):
        return np.zeros((0, memory.underlyings)), np.zeros(0)
    now = [_now(memory, memory.horizons[h]) for h in used]
    rate = np.array([w[h] @ said * vol / np.sqrt(HORIZON_DAYS[h]) for h, (said, vol) in zip(used, now, strict=True)])
    return capped(rate, now[0][1], params.max_sharpe), np.array([1.0 / HORIZON_DAYS[h] for h in used])


def _now(memory: LearnerMemory, horizon: Horizon) -> tuple[FloatArray, FloatArray]:
    """(said [M, U], vol [U] 1/√day) at the last sample; 0 where there was no price."""
    row = memory.past.slot % (horizon.steps + 1)
    return horizon.said[row], np.nan_to_num(horizon.vol[row])


def tell(memory: LearnerMemory, universe: Universe, params: LearnerParameters, now_ns: int) -> None:
    """Put into words what the forecasters say and how good they were (`told`), and how they are on trial
    (`contenders`)."""
    w, lines, contenders, offered = weights(memory, params), [], [], offers(memory, params)
    for h, horizon in enumerate(memory.horizons):
        said, vol = _now(memory, horizon)
        unit, scores = vol * np.sqrt(horizon.days), horizon.scores
        columns = (said * unit, scores.deviation() * unit, scores.r_squared(), scores.hit_rate(), scores.t())
        for m, learner in enumerate(memory.roster):
            name, share = f"{learner}_{horizon.name}", float(w[h, m])
            for u, underlying in enumerate(universe.underlyings):
                figures = (float(column[m, u]) for column in columns)
                count = int(scores.count[u])
                lines.append(Forecaster(name, underlying, share, float(horizon.weights[m]), count, *figures))
            if m:
                contenders.append(trial.contender(memory.trial, horizon.name, name, share, offered.get(name, share)))
    memory.told, memory.contenders, memory.told_ns = tuple(lines), tuple(contenders), now_ns
