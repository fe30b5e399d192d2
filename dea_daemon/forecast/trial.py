"""Champion and challengers: who is proposed for trading, and who loses what trust it had.

Each contender is on trial against what trades, on outcomes that do not overlap. A challenger is what would trade if it
were given `promoted_weight`; it is proposed once its e-process says that this would lose less (at `significance` over
the number of contenders), what it earned after costs is a gain, and its loss has not drifted. What has weight loses it
at once when its loss drifts (Page–Hinkley) or when the e-process says that what trades would lose less without it.
A ruling holds, over restarts too, until the operator rules otherwise.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dea_daemon.domain.decisions import Contender, Note
from dea_daemon.domain.events import ForecasterRuled
from dea_daemon.domain.instruments import FloatArray
from dea_daemon.domain.models import Court, Kept, Standing, Track
from dea_daemon.domain.parameters import TrialParameters
from dea_daemon.forecast.monitoring import bet, drift, p_value

TOLERANCE, LIMIT, LEAST = 0.25, 30.0, 30  # of drift, in mean absolute differences; LEAST outcomes before an alarm
WIDE = 3.0  # a difference beyond so many of these counts as so many
VARIANCE = "variance"
CAUTIOUS = "cautious"
RIVALS = 2  # models of variance beside the one that trades
SLOW = "ewma_10d"
MODELS = ("har", "harq", "ewma", SLOW, CAUTIOUS)
COURT, DRIFTED, HARMFUL = "the trial", "its loss has drifted", "what trades would lose less without it"


class Round(NamedTuple):
    """One outcome: losses of what trades, of that with and without a contender, its own and the baseline's; and what
    it would have earned after costs."""

    traded: float
    with_it: float
    without: float
    own: float
    baseline: float
    gain: float = 0.0


class TrialMemory:
    """All courts, by name; what was ruled, by contender; the weights offered to those proposed. `notes` are drained by
    who folds."""

    def __init__(self) -> None:
        self.restore(Kept())

    def restore(self, kept: Kept) -> None:
        """As an earlier run left it."""
        self.courts = {court.name: court for court in kept.courts}
        self.standings = {standing.name: standing for standing in kept.standings}
        self.proposed = dict(kept.proposed)  # and the weight offered
        self.notes: list[Note] = []

    @property
    def kept(self) -> Kept:
        return Kept(tuple(self.standings.values()), tuple(self.courts.values()), tuple(self.proposed.items()))

    def drained(self) -> tuple[Note, ...]:
        """What is worth a note since the last time."""
        notes, self.notes = tuple(self.notes), []
        return notes

    def note(self, event: str, name: str, **fields: str | int | float | bool) -> None:
        self.notes.append(Note(event, {"name": name, **fields}))

    def track(self, court: str, name: str) -> Track:
        found = self.courts.get(court)
        return next((t for t in found.tracks if t.name == name), Track(name)) if found else Track(name)


def hear(
    memory: TrialMemory,
    court: str,
    champion: str,
    rounds: Mapping[str, Round],
    offered: Mapping[str, float],
    alpha: float,
    utc_ns: int,
    params: TrialParameters,
) -> None:
    """One more outcome of each contender of a court, and what follows from it. Another champion begins all anew.

    `offered` is the weight a contender would be given; one that has weight is offered none. `alpha` is the level of
    one contender's trial. What has no outcome, or none that is a number, waits.
    """
    known = memory.courts.get(court)
    if known is None or known.champion != champion:
        known = Court(court, champion)
        memory.proposed = {name: weight for name, weight in memory.proposed.items() if name not in rounds}
    before = {track.name: track for track in known.tracks}
    tracks = {
        name: _heard(before.get(name, Track(name)), one) if np.isfinite(one).all() else before.get(name, Track(name))
        for name, one in rounds.items()
    }
    for name, track in tracks.items():
        if name not in offered:
            if _gone(memory, court, track, alpha, utc_ns, params):
                tracks[name] = Track(name)  # promoted again, it is not judged by what it was demoted for
        elif track.drift.alarm:  # in shadow nothing is lost but its own trial
            tracks[name] = Track(name)
            _weigh(memory, tracks[name], offered[name], alpha, utc_ns, params)
        else:
            _weigh(memory, track, offered[name], alpha, utc_ns, params)
    memory.courts[court] = Court(court, champion, tuple(tracks.values()))


def _heard(track: Track, one: Round) -> Track:
    gap = one.own - one.baseline
    usual = track.size / max(track.rounds, 1)
    counted = float(np.clip(gap / usual, -WIDE, WIDE)) if usual > 0.0 else 0.0
    return Track(
        track.name,
        bet(track.evidence, one.traded, one.with_it),
        bet(track.against, one.traded, one.without),
        drift(track.drift, counted, tolerance=TOLERANCE, limit=LIMIT, least=LEAST),
        track.size + abs(gap),
        track.rounds + 1,
        track.net_gain + one.gain,
    )


def _gone(memory: TrialMemory, court: str, track: Track, alpha: float, utc_ns: int, params: TrialParameters) -> bool:
    """Whether what trades lost its weight; a model of variance loses it to `cautious`."""
    why = DRIFTED if track.drift.alarm else HARMFUL if p_value(track.against) <= alpha else ""
    if not why or not params.drift or track.name == CAUTIOUS:
        return False
    ruled = CAUTIOUS if court == VARIANCE else track.name
    rule(memory, Standing(ruled, float(ruled == CAUTIOUS), COURT, f"{track.name}: {why}", utc_ns))
    memory.note("forecaster.demoted", track.name, why=why, rounds=track.rounds)
    return True


def _weigh(
    memory: TrialMemory, track: Track, offered: float, alpha: float, utc_ns: int, params: TrialParameters
) -> None:
    """What does not trade may be proposed, or be no longer."""
    p, was = p_value(track.evidence), track.name in memory.proposed
    better = p <= alpha and track.net_gain >= 0.0 and offered > 0.0
    if was and not better:
        del memory.proposed[track.name]
        memory.note("forecaster.retracted", track.name, rounds=track.rounds)
    if not better:
        return
    if not was:
        told = {"weight": offered, "p": p, "rounds": track.rounds, "net_gain": track.net_gain}
        memory.note("forecaster.proposed", track.name, **told)
        memory.proposed[track.name] = offered
    if params.promotion == "automatic" and not _spoken_for(memory, track.name):
        rule(memory, Standing(track.name, offered, COURT, f"{track.name}: it won its trial", utc_ns))
        memory.note("forecaster.promoted", track.name, weight=offered, who=COURT, why="it won its trial")


def _spoken_for(memory: TrialMemory, name: str) -> bool:
    """Whether the operator ruled on it, or which model of variance trades: no trial promotes against that."""
    ruled = (memory.standings.get(each) for each in (MODELS if name in MODELS else (name,)))
    return any(standing is not None and standing.who != COURT for standing in ruled)


def rule(memory: TrialMemory, standing: Standing) -> None:
    """From now on this holds. Of models of variance one trades."""
    if standing.name in MODELS:
        for name in MODELS:
            memory.standings.pop(name, None)
    memory.standings[standing.name] = standing
    memory.proposed.pop(standing.name, None)


def lift(memory: TrialMemory, name: str) -> None:
    """As the configuration says; a model of variance, whichever trades."""
    for each in MODELS if name in MODELS else (name,):
        memory.standings.pop(each, None)


def spoken(memory: TrialMemory, event: ForecasterRuled, utc_ns: int, most: Mapping[str, float]) -> None:
    """The operator's word on one of those who may be ruled on, and given `most`; refused, with a note, else."""
    name, weight, told = event.name, event.weight, {"who": event.who, "why": event.why}
    if name not in most:
        memory.note("forecaster.refused", name, why=f"there is none; there are {', '.join(sorted(most))}")
    elif weight is None:
        lift(memory, name)
        memory.note("forecaster.promoted", name, **told, as_configured=True)
    elif name in MODELS and weight != 1.0:
        memory.note("forecaster.refused", name, why="of the models of variance one trades: promote another")
    elif not 0.0 <= weight <= most[name] + 1e-9:
        memory.note("forecaster.refused", name, why=f"a weight of {weight:g}: from 0 to {most[name]:g}")
    else:
        rule(memory, Standing(name, weight, event.who, event.why, utc_ns))
        memory.note("forecaster.promoted" if weight else "forecaster.demoted", name, **told, weight=weight)


# --- what is told ------------------------------------------------------------------------------------------------


def contender(memory: TrialMemory, court: str, name: str, weight: float, offered: float) -> Contender:
    """How it is on trial now."""
    track, standing = memory.track(court, name), memory.standings.get(name)
    ruled = memory.standings.get(CAUTIOUS) if court == VARIANCE and weight == 0.0 else standing
    blamed = ruled is not None and (ruled is standing or ruled.why.startswith(f"{name}: "))
    if weight > 0.0:
        state = "traded"
    elif name in memory.proposed:
        state = "proposed"
    else:
        state = "demoted" if blamed else "shadow"
    return Contender(
        name,
        "variance" if court == VARIANCE else "return",
        state,
        weight,
        offered,
        track.rounds,
        p_value(track.evidence),
        p_value(track.against),
        (track.drift.above - track.drift.lowest) / LIMIT,
        float("nan") if court == VARIANCE else track.net_gain,
        ": ".join(filter(None, (ruled.who, ruled.why))) if ruled is not None and blamed else "",
    )


def loss(said: FloatArray, came: FloatArray) -> float:
    """Mean squared error over the underlyings whose outcome is known; NaN where none is."""
    known = np.isfinite(came)
    return float(np.mean((said[known] - came[known]) ** 2)) if known.any() else float("nan")


def qlike(forecast: FloatArray, realised: FloatArray) -> float:
    """Mean over the underlyings where both are known; NaN where none is. Source: Patton (2011)."""
    ratio = realised / forecast
    known = np.isfinite(ratio) & (ratio > 0.0)
    return float(np.mean(ratio[known] - np.log(ratio[known]) - 1.0)) if known.any() else float("nan")
