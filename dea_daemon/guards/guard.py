"""Target → Permit: conditions first, then limits, each cutting inward and saying why."""

import numpy as np

from dea_daemon.domain.decisions import Clip, Licence, Permit, View
from dea_daemon.domain.instruments import BoolArray, IntArray
from dea_daemon.domain.parameters import GuardParameters
from dea_daemon.guards import cuts
from dea_daemon.guards.conditions import diverged, guessed, in_doubt, licences, propose
from dea_daemon.guards.limits import Caps, caps, exposed, uses

_CUTS = (
    ("instrument", cuts.to_instrument, "notional of one contract"),
    ("scenario", cuts.to_scenario, "loss in the worst scenario"),
    ("net", cuts.to_net, "dollar delta of one underlying"),
    ("gamma", cuts.to_gamma, "gamma of one underlying"),
    ("vega", cuts.to_vega, "vega of one underlying"),
    ("gross", cuts.to_gross, "sum of notionals"),
)


def guard(view: View, wanted_lots: IntArray, params: GuardParameters) -> Permit:
    """The book the limits allow. Further from the present than `wanted_lots` [N] only to end a breach."""
    off = diverged(view, params)
    doubted = in_doubt(view, off, params)
    mode, why = propose(view, doubted, params)
    cap = caps(view, params)
    over_net = ~(np.abs(view.delta_usd) <= cap.net)
    suspect = view.quarantined | off | doubted | view.greeks_off
    licence, reason = licences(view, mode, _breached(view, over_net, cap), suspect, params)
    clips: list[Clip] = []
    lots = cuts.by_licence(view, wanted_lots, licence)
    lots = np.where(_worsens_a_guess(view, lots), view.position_lots, lots)
    _tell(clips, view, "licence", wanted_lots, lots, reason or "stale, diverged, modelled, quarantined or expired")
    for limit, cut, because in _CUTS:
        after = np.where(licence > Licence.NOTHING, cut(view, lots, cap), view.position_lots)
        _tell(clips, view, limit, lots, after, because)
        lots = after
    return Permit(
        view=view,
        position_lots=lots,
        licence=licence,
        urgent=over_net,
        doubted=doubted,
        mode=mode,
        mode_why=why,
        clips=tuple(clips),
        uses=uses(exposed(view), params, cap),
    )


def _worsens_a_guess(view: View, lots: IntArray) -> BoolArray:
    """[N] hedges whose change adds to a delta that rests on guessed Greeks, even by closing a position."""
    delta = np.sign(view.delta_usd)[view.universe.underlying] * view.delta_per_lot
    return guessed(view) & ~view.universe.option & ((lots - view.position_lots) * delta > 0.0)


def _breached(view: View, over_net: BoolArray, cap: Caps) -> BoolArray:
    """Whether any limit is broken by what is held right now (orders aside): one flag a limit."""
    held = np.flatnonzero(view.position_lots)
    notional = np.abs(view.position_lots[held]) * view.notional_per_lot_usd[held]
    over_instrument = ~(notional <= cap.instrument)
    over_gross = np.array([not float(notional.sum()) <= cap.gross])
    greeks = [~(np.abs(view.factor_usd(kind)) <= most) for kind, most in (("gamma", cap.gamma), ("vega", cap.vega))]
    loss = cap.grid.worst_loss_usd(view.position_lots) if cap.scenario != np.inf else 0.0
    over_scenario = np.array([not loss <= cap.scenario])
    return np.concatenate((over_scenario, over_net, *greeks, over_instrument, over_gross))


def _tell(clips: list[Clip], view: View, limit: str, before: IntArray, after: IntArray, why: str) -> None:
    """One Clip a row that a limit changed."""
    clips.extend(
        Clip(limit, view.universe.instruments[i].name, float(before[i]), float(after[i]), why)
        for i in np.flatnonzero(before != after)
    )
