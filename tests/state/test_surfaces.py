"""Volatility surfaces in the core: asked for, judged, valued from, and doubted."""

import math

import msgspec
import numpy as np
import pytest

from dea_daemon.domain.commands import FitSurface
from dea_daemon.domain.decisions import Decision, IvSource
from dea_daemon.domain.events import (
    AnyEvent,
    InstrumentsListed,
    ParametersReloaded,
    SurfaceFitted,
)
from dea_daemon.domain.instruments import Kind
from dea_daemon.domain.parameters import PricingParameters
from dea_daemon.domain.surfaces import TENOR_DAYS, Chain, Rung, Smile, Tenor
from dea_daemon.engine import begin, reload, step
from dea_daemon.pricing import black
from dea_daemon.pricing.revaluation import MOVES, VOLS, gain_per_lot
from dea_daemon.pricing.surface.fit import fit
from dea_daemon.pricing.surface.lattice import lattice
from dea_daemon.state import surfaces
from dea_daemon.state.surfaces import QUESTIONS
from tests.house import BTC_PERP, START_NS, S, creates
from tests.state.test_options import ATM_CALL, ATM_PUT, CHAIN, DAY, EXPIRY_NS, FIRST, SMILE, Desk, option

DEEP_CALL = FIRST  # the call struck at 70,000
YEAR_NS = 365 * DAY
TICK = 0.0001
OTM_CALL = FIRST + 8  # struck at 90,000


def fitted(
    command: FitSurface, vol=SMILE, slope=0.0, wide=1.0, why="", quotes=6, expiries: tuple[int, ...] | None = None
) -> SurfaceFitted:
    """An answer: every smile vol + slope k (within |k| ≤ 0.5), by so many quotes on |k| ≤ `wide`, the same at every
    maturity."""
    chain, forward = command.chain, float(np.median(command.chain.forward))
    line = np.clip(vol + slope * np.clip(lattice().k, -0.5, 0.5), 0.05, None)
    smiles = tuple(
        Smile(ns, forward, tuple((line**2 * (ns - chain.utc_ns) / YEAR_NS).tolist()), Rung.FITTED, -wide, wide, quotes)
        for ns in (chain.expiries if expiries is None else expiries)
    )
    tenors = tuple(Tenor(days, vol, slope, 0.0) for days in TENOR_DAYS)
    return SurfaceFitted(0, chain.underlying, chain.utc_ns, 0.1, () if why else smiles, tenors, why=why)


class Fitting(Desk):
    """A desk whose surfaces come back when told to. `smile` is what it is quoted at: volatility, slope in ln(K/F)."""

    smile = (SMILE, 0.0)

    def ticker(self, row: int, *, bid=None, ask=None, **how) -> None:
        contract, (vol, slope) = self.rows[row], self.smile
        sigma = vol + slope * math.log(contract.strike / self.forward)
        tau = max(contract.expiry_ns - self.now_ns, 1_800 * S) / YEAR_NS
        ticks = float(black.price(self.forward, contract.strike, tau, sigma, contract.is_call)) / self.forward / TICK
        bid = math.floor(ticks) * TICK if bid is None else bid
        ask = math.ceil(ticks + 1e-9) * TICK if ask is None else ask
        super().ticker(row, bid=bid, ask=ask, **how)

    def ask(self, wait_s: float = 5.0) -> FitSurface:
        """The next question."""
        self.pass_time(int(wait_s * 1_000) - 100)
        (command,) = asked(self.decide())
        return command

    def answer(self, command: FitSurface, **how) -> SurfaceFitted:
        event = msgspec.structs.replace(fitted(command, **how), ts_recv_ns=self.now_ns)
        self.feed(event)
        return event

    def trusting(self, **how) -> "Fitting":
        """Settled, with a surface of what is quoted."""
        self.smile = (how.get("vol", SMILE), how.get("slope", 0.0))
        self.settle()
        (command,) = asked(self.decide())
        self.answer(command, **how)
        return self

    @property
    def why(self) -> str:
        """As the next tick finds it."""
        assert self.view is not None
        return self.state.market.surfaces.why[0]

    def notes(self, decision: Decision) -> list[str]:
        return [note.event for note in decision.notes if note.event.startswith("surface.")]


def asked(decision: Decision) -> list[FitSurface]:
    return [command for command in decision.commands if isinstance(command, FitSurface)]


# --- asking ------------------------------------------------------------------------------------------


def test_a_surface_is_asked_for_at_its_cadence_and_not_again_before_the_answer():
    desk = Fitting()
    desk.settle()
    (command,) = asked(desk.decide())
    assert command.chain.utc_ns == desk.now_ns and command.max_iv_spread == 0.5
    assert not any(asked(desk.decide()) for _ in range(100))  # ten seconds: no answer yet
    desk.answer(command)
    assert asked(desk.decide())
    desk = Fitting().trusting()
    waited = [bool(asked(desk.decide())) for _ in range(50)]
    assert waited.index(True) == 49  # 4.9 s after the one before


def test_a_move_of_the_index_brings_the_next_forward_but_not_without_bound():
    desk = Fitting().trusting()
    desk.prices["BTC"] = desk.forward = 80_500.0
    waits = [bool(asked(desk.decide())) for _ in range(12)]
    assert waits.index(True) == 9  # a second after the last
    desk = Fitting().trusting()
    desk.prices["BTC"] = desk.forward = 80_300.0  # less than half a percent
    assert not any(asked(desk.decide()) for _ in range(12))


def test_an_answer_that_does_not_come_is_asked_for_again():
    desk = Fitting(pricing={"surface": {"answer_s": 2.0}})
    desk.settle()
    assert asked(desk.decide())
    waits = [bool(asked(desk.decide())) for _ in range(25)]
    assert waits.index(True) == 19


def test_the_chain_holds_every_quote_in_dollars_with_its_age():
    soon = option(80_000.0, True, START_NS + 3_000 * S, "BTC-SOON-80000-C")  # its settlement is near
    late = option(80_000.0, True, EXPIRY_NS + 7 * DAY, "BTC-LATE-80000-C")  # nobody spoke of it yet
    desk = Fitting(chain=(*CHAIN, soon, late))
    desk.skip = {FIRST + len(CHAIN) + 1}
    desk.settle()
    desk.skip |= {ATM_CALL, ATM_PUT, OTM_CALL}
    desk.ticker(ATM_CALL, bid=math.nan, ask=0.05)
    desk.ticker(ATM_PUT, bid=0.03, ask=math.nan)
    desk.ticker(OTM_CALL, bid=0.0, ask=math.inf)
    (command,) = asked(desk.decide())
    chain = command.chain
    assert (chain.underlying, chain.expiries) == ("BTC", (EXPIRY_NS, EXPIRY_NS + 7 * DAY))
    assert len(chain.strike) == len(CHAIN) and set(chain.expiry_ns) == {EXPIRY_NS}
    told = dict(zip(zip(chain.strike, chain.call, strict=True), range(len(CHAIN)), strict=True))
    call, put, wing = (told[key] for key in ((80_000.0, True), (80_000.0, False), (90_000.0, True)))
    assert chain.bid[call] == 0.0 and chain.ask[call] == pytest.approx(0.05 * chain.forward[call])
    assert chain.bid[put] == pytest.approx(0.03 * chain.forward[put]) and math.isnan(chain.ask[put])
    assert chain.bid[wing] == 0.0 and math.isnan(chain.ask[wing])
    assert chain.tick[call] == pytest.approx(0.0001 * chain.forward[call])
    assert chain.age_s[call] == pytest.approx(0.1) and chain.age_s[told[(70_000.0, True)]] == 0.0


def test_a_quote_older_than_an_options_may_be_is_in_no_chain():
    desk = Fitting(state={"stale_option_ms": 4_000}).trusting()
    desk.skip = {ATM_CALL}
    assert len(desk.ask(5.0).chain.strike) == len(CHAIN) - 1
    desk = Fitting(state={"stale_option_ms": 6_000}).trusting()
    desk.skip = {ATM_CALL}
    chain = desk.ask(5.0).chain
    assert len(chain.strike) == len(CHAIN) and max(chain.age_s) == pytest.approx(5.0)


def test_without_an_index_or_with_a_few_quotes_only_none_is_asked_for():
    desk = Fitting()
    desk.settle()
    desk.skip = set(range(FIRST, FIRST + 6))
    for row in desk.skip:
        desk.ticker(row, bid=math.nan)
    assert not asked(desk.decide())  # four left
    desk.skip = set(range(FIRST, FIRST + 5))
    assert asked(desk.decide())
    desk = Fitting()
    desk.settle()
    desk.pass_time(6_000)
    assert not asked(desk.tick())  # the index is too old


# --- judging -----------------------------------------------------------------------------------------


def test_there_is_doubt_until_the_first_surface_and_then_its_smile_is_told():
    desk = Fitting()
    desk.smile = (0.5, -0.1)
    desk.settle()
    v = desk.view
    assert (desk.why, v.surface_doubt.tolist()) == ("none yet", [True, False])  # nobody follows options on ETH
    assert np.isnan(v.smile).all()
    (command,) = asked(desk.decide())
    desk.answer(command, vol=0.5, slope=-0.1)
    v = desk.view
    assert desk.why == "" and not v.surface_doubt.any()
    np.testing.assert_array_equal(v.smile[0], [[0.5, -0.1, 0.0]] * 3)
    assert np.isnan(v.smile[1]).all()


def test_a_surface_too_old_is_doubted_by_the_age_of_its_question_not_of_the_answer():
    desk = Fitting(pricing={"surface": {"stale_s": 60.0, "answer_s": 1e6}})
    desk.settle()
    (command,) = asked(desk.decide())
    desk.pass_time(50_000)
    desk.answer(command)  # it took long
    assert desk.notes(desk.decide()) == ["surface.trusted"]
    desk.pass_time(9_800)
    desk.decide()
    assert desk.why == ""
    decision = desk.decide()
    assert desk.why == "stale: 60 s" and desk.notes(decision) == ["surface.doubted"]
    assert desk.notes(desk.decide()) == []  # said once
    assert desk.view.iv_source[ATM_CALL] == IvSource.QUOTES


def test_an_answer_too_late_unasked_or_overtaken_is_none():
    desk = Fitting(pricing={"surface": {"stale_s": 60.0, "answer_s": 1.0}})
    desk.smile = (0.5, 0.0)
    desk.settle()
    (first,) = asked(desk.decide())
    second = desk.ask(1.0)
    unasked = msgspec.structs.replace(second, chain=msgspec.structs.replace(second.chain, utc_ns=1))
    desk.answer(unasked)
    assert desk.why == "none yet"
    desk.answer(second, vol=0.5)
    desk.answer(first, vol=0.7)
    assert desk.view.iv[ATM_CALL] == pytest.approx(0.5)
    third = desk.ask(5.0)
    desk.pass_time(60_100)
    desk.answer(third, vol=0.7)
    desk.quote()
    assert desk.why.startswith("stale") and desk.state.market.surfaces.refused == 0
    published = desk.state.market.surfaces.fitted[0]
    assert published is not None and published.chain_utc_ns == second.chain.utc_ns


@pytest.mark.parametrize("broken", ["gated", "nan", "negative", "empty"])
def test_one_that_is_not_published_is_doubted_whoever_found_out_until_the_next(broken):
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    command = desk.ask(4.9)
    event = fitted(command, why="butterfly" if broken == "gated" else "")
    if broken == "empty":
        event = msgspec.structs.replace(event, smiles=())
    elif broken != "gated":
        bad = [math.nan if broken == "nan" else -1.0, *event.smiles[0].variance[1:]]
        event = msgspec.structs.replace(event, smiles=(msgspec.structs.replace(event.smiles[0], variance=tuple(bad)),))
    desk.feed(msgspec.structs.replace(event, ts_recv_ns=desk.now_ns))
    decision = desk.decide()
    assert desk.why.startswith("not published: ") and desk.notes(decision) == ["surface.doubted"]
    assert desk.state.market.surfaces.refused == 1
    v = desk.view
    assert v.surface_doubt[0] and v.iv_source[ATM_CALL] == IvSource.QUOTES
    desk.answer(desk.ask(4.9), vol=0.5)
    assert desk.notes(desk.decide()) == ["surface.trusted"] and desk.why == ""


def test_a_jump_is_not_relied_upon_until_the_next_agrees_with_it():
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    desk.smile = (0.505, 0.0)
    desk.answer(desk.ask(4.9), vol=0.505)  # half a point in five seconds
    assert desk.why == ""
    desk.answer(desk.ask(), vol=0.6)
    decision = desk.decide()
    assert desk.why.startswith("jumped: ") and desk.notes(decision) == ["surface.doubted"]
    v = desk.view
    assert v.surface_doubt[0] and v.iv_source[ATM_CALL] == IvSource.QUOTES and np.isnan(v.smile).all()
    desk.answer(desk.ask(4.9), vol=0.505)  # back: it does not agree with the jump
    assert desk.why.startswith("jumped: ")
    desk.answer(desk.ask(), vol=0.506)
    assert desk.notes(desk.decide()) == ["surface.trusted"]
    assert desk.why == "" and desk.view.iv[ATM_CALL] == pytest.approx(0.506)


def test_a_risk_reversal_jumps_too_and_what_the_index_did_excuses_much_of_it():
    desk = Fitting().trusting(slope=0.0)
    desk.decide()
    desk.answer(desk.ask(4.9), slope=-0.6)
    assert desk.why.startswith("jumped: ")
    desk = Fitting().trusting(slope=0.0)
    desk.decide()
    desk.prices["BTC"] = desk.forward = 76_000.0
    desk.smile = (SMILE, -0.6)
    desk.answer(desk.ask(4.9), slope=-0.6)
    assert desk.why == ""


def test_what_is_usual_is_learnt_and_ordinary_changes_are_no_jump():
    rng, desk, vol = np.random.default_rng(8), Fitting().trusting(vol=0.5), 0.5
    desk.decide()
    seen = []
    for _ in range(300):  # 1.5 points a minute, half as much again as assumed before data
        vol *= math.exp(0.03 * math.sqrt(5.0 / 60.0) * rng.standard_normal())
        desk.smile = (vol, 0.0)
        desk.answer(desk.ask(), vol=vol)
        seen.append(desk.state.market.surfaces.jump_z[0])
        assert desk.why == ""
    seen = seen[100:]
    assert 0.7 < np.sqrt(np.mean(np.square(seen))) < 1.3 and max(seen) < 5.0
    desk.answer(desk.ask(), vol=vol * 1.1)  # ten of its own deviations
    assert desk.why.startswith("jumped: ")


def test_expiries_that_two_surfaces_do_not_share_are_no_jump_and_clear_none():
    later = EXPIRY_NS + 20 * DAY
    desk = Fitting().trusting(vol=0.5, expiries=(EXPIRY_NS,))
    desk.decide()
    desk.answer(desk.ask(4.9), vol=0.5, expiries=(later,))
    assert desk.why == "" and math.isnan(desk.state.market.surfaces.jump_z[0])
    desk.answer(desk.ask(), vol=0.7, expiries=(EXPIRY_NS, later))
    assert desk.why.startswith("jumped: ")
    told = desk.why
    desk.answer(desk.ask(), vol=0.5, expiries=(EXPIRY_NS + DAY,))
    assert math.isnan(desk.state.market.surfaces.jump_z[0]) and desk.why == told
    desk.answer(desk.ask(), vol=0.5, expiries=(EXPIRY_NS + DAY,))
    assert desk.why == ""


def test_an_expiry_that_few_quotes_tell_of_may_change_as_it_likes():
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    desk.answer(desk.ask(4.9), vol=0.9, quotes=2)
    assert desk.why == "" and desk.view.iv_source[ATM_CALL] == IvSource.QUOTES


def test_a_jump_is_found_at_whatever_expiry_there_is_and_a_near_one_may_move_more():
    # Two days and five hundred: no tenor lies between expiries a surface has.
    z = {}
    for days in (2, 30, 500):
        at = (START_NS + days * DAY,)
        desk = Fitting().trusting(vol=0.6, expiries=at)
        desk.decide()
        desk.answer(desk.ask(4.9), vol=0.606, expiries=at)
        z[days] = float(desk.state.market.surfaces.jump_z[0])
        desk.answer(desk.ask(), vol=0.9, expiries=at)
        assert desk.why.startswith("jumped: ")
    assert z[2] < 0.5 * z[30] and z[500] == pytest.approx(z[30], rel=0.01)


def test_a_change_that_is_no_number_is_a_jump_without_bound(monkeypatch):
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    command = desk.ask(4.9)
    monkeypatch.setattr(surfaces, "terms", lambda surface, at: np.full((len(at), 3), math.nan))
    desk.answer(command, vol=0.5)
    assert desk.state.market.surfaces.jump_z[0] == math.inf and desk.why.startswith("jumped: ")
    monkeypatch.undo()
    desk.answer(desk.ask(), vol=0.5)
    assert desk.why == ""


# --- silence -----------------------------------------------------------------------------------------


def test_a_question_that_waits_too_long_for_its_answer_is_doubt_and_its_answer_ends_it():
    desk = Fitting(pricing={"surface": {"answer_s": 20.0}}).trusting()
    desk.decide()
    first = desk.ask(4.9)
    desk.pass_time(19_800)
    assert desk.notes(desk.decide()) == [] and desk.why == ""
    (second,) = asked(desk.decide())
    assert desk.notes(desk.decide()) == ["surface.doubted"] and desk.why == "no answer: 20 s"
    desk.answer(first)  # the younger one's still waits, for no time yet
    assert desk.notes(desk.decide()) == ["surface.trusted"] and desk.why == ""
    desk.pass_time(20_000)
    desk.decide()
    assert desk.why == "no answer: 20 s"
    desk.answer(second)
    desk.quote()
    assert desk.why == ""


def test_a_question_overtaken_by_a_younger_ones_answer_is_waited_for_no_longer():
    desk = Fitting(pricing={"surface": {"answer_s": 2.0}}).trusting()
    desk.ask()
    desk.answer(desk.ask(2.0))
    assert desk.why == ""
    desk.pass_time(4_000)
    desk.decide()
    assert desk.why == ""


def test_that_the_first_question_of_all_has_no_answer_is_said():
    desk = Fitting(pricing={"surface": {"answer_s": 20.0}})
    desk.settle()
    assert asked(desk.decide()) and desk.why == "none yet"
    desk.pass_time(20_000)
    assert desk.notes(desk.decide()) == ["surface.doubted"] and desk.why == "no answer: 20 s"


def test_so_many_unanswered_questions_are_remembered_and_an_older_ones_answer_is_none():
    desk = Fitting(pricing={"surface": {"answer_s": 1.0, "at_most_every_s": 1.0}})
    desk.settle()
    questions = [*asked(desk.decide()), *(desk.ask(1.0) for _ in range(QUESTIONS))]
    desk.answer(questions[0])
    desk.quote()
    assert desk.state.market.surfaces.fitted[0] is None
    desk.answer(questions[1])
    assert desk.state.market.surfaces.fitted[0] is not None


def test_too_few_quotes_are_doubt_at_once_where_there_never_was_a_surface():
    desk = Fitting()
    desk.skip = set(range(FIRST, FIRST + 6))
    desk.settle()
    assert not asked(desk.decide()) and desk.notes(desk.decide()) == ["surface.doubted"]
    assert desk.why.startswith("too few quotes: ")
    desk.skip = set()
    (command,) = asked(desk.decide())
    desk.answer(command)
    assert desk.notes(desk.decide()) == ["surface.trusted"] and desk.why == ""


def test_too_few_quotes_are_doubt_after_a_while_where_there_was_one():
    desk = Fitting(pricing={"surface": {"answer_s": 20.0}}).trusting()
    desk.skip = set(range(FIRST, FIRST + 6))
    desk.decide()
    desk.pass_time(15_000)  # now those six are old
    assert not asked(desk.decide()) and desk.why == ""
    since_s = 0
    while not desk.why:
        desk.pass_time(900)
        desk.decide()
        since_s += 1
    assert since_s == 21 and desk.why.startswith("too few quotes: ")


# --- what the quotes of the moment say ----------------------------------------------------------------


def test_where_volatility_moves_options_go_by_their_quotes_at_once_and_the_next_surface_is_asked_for():
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    assert desk.view.iv_source[ATM_CALL] == IvSource.SURFACE
    desk.pass_time(900)
    desk.smile = (0.55, 0.0)
    (command,) = asked(desk.decide())  # a second after the last, not five
    v = desk.state.view
    assert v is not None and v.surface_doubt[0] and np.isnan(v.smile[0]).all()
    assert v.iv_source[ATM_CALL] == IvSource.QUOTES and v.iv[ATM_CALL] == pytest.approx(0.55, abs=0.003)
    assert desk.notes(desk.decide()) == ["surface.doubted"] and desk.why == surfaces.CONTRADICTED
    desk.smile = (0.5, 0.0)  # back again: the surface is not, before the next one
    desk.decide()
    assert desk.why == surfaces.CONTRADICTED
    desk.answer(command, vol=0.5)
    assert desk.notes(desk.decide()) == [] and desk.notes(desk.decide()) == ["surface.trusted"]
    assert desk.view.iv_source[ATM_CALL] == IvSource.SURFACE


def test_one_contradicted_again_and_again_is_doubted_all_along_and_that_is_said_once():
    desk, said = Fitting().trusting(vol=0.5), []
    desk.decide()
    desk.smile = (0.6, 0.0)
    for _ in range(100):
        decision = desk.decide()
        said += desk.notes(decision)
        assert desk.state.view is not None and desk.state.view.surface_doubt[0]
        for command in asked(decision):
            desk.answer(command, vol=0.5)  # what it is not quoted at
    assert said == ["surface.doubted"]


def test_a_few_outliers_wide_quotes_and_those_without_a_side_contradict_nothing():
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    rows = list(range(FIRST, FIRST + len(CHAIN)))
    worth = {row: float(desk.state.market.bid[row]) for row in rows}

    def told(**sides) -> str:
        desk.skip = set(rows)
        for row in rows:
            desk.ticker(row, **{side: float(how(row)) for side, how in sides.items()})
        return desk.why

    few = set(rows[:2])
    assert told(bid=lambda r: worth[r] * (1.2 if r in few else 1.0), ask=lambda r: worth[r] * 1.2 + TICK) == ""
    assert told(bid=lambda r: 1.2 * worth[r], ask=lambda r: 1.6 * worth[r]) == ""  # wide
    assert told(bid=lambda r: 1.6 * worth[r], ask=lambda r: 1.2 * worth[r]) == ""  # crossed
    assert told(bid=lambda r: math.nan, ask=lambda r: 1.6 * worth[r]) == ""
    assert told(bid=lambda r: 1.6 * worth[r], ask=lambda r: math.nan) == ""
    many = set(rows[:4])
    bids = {r: worth[r] * (1.2 if r in many else 1.0) for r in rows}
    assert told(bid=bids.get, ask=lambda r: bids[r] + TICK) == surfaces.CONTRADICTED


def test_a_tick_that_is_much_of_a_wings_price_is_room_not_contradiction():
    # Ten days, half the volatility: wings of a tick or two.
    desk = Fitting().trusting(vol=0.3)
    desk.decide()
    wings = [FIRST, FIRST + 1, FIRST + 8, FIRST + 9]
    desk.skip = set(wings)
    for row in wings:
        bid = float(desk.state.market.bid[row])
        desk.ticker(row, bid=bid + 2 * TICK, ask=bid + 3 * TICK)  # the surface's price is up to two ticks below
    assert desk.why == ""
    for row in wings:
        bid = float(desk.state.market.bid[row])
        desk.ticker(row, bid=bid + 4 * TICK, ask=bid + 5 * TICK)
    assert desk.why == surfaces.CONTRADICTED


@pytest.mark.parametrize("lag", ["none", "all", "half"])
def test_an_index_that_leaves_half_its_options_fresh_quotes_behind_is_no_market_to_value_by(lag):
    rows = range(FIRST, FIRST + len(CHAIN))
    desk = Fitting().trusting(vol=0.5)
    desk.decide()
    desk.pass_time(900)
    desk.prices["BTC"] = desk.forward = 80_600.0
    desk.skip = {"none": set(), "all": set(rows), "half": set(rows[1::2])}[lag]  # the puts
    (command,) = asked(desk.decide())
    # Where all stayed, so did the forward that they imply: a consistent market of a moment ago.
    assert desk.why == (surfaces.CONTRADICTED if lag == "half" else "")
    desk.answer(command, vol=0.5)
    desk.decide()
    assert desk.why == (surfaces.CONTRADICTED if lag == "half" else "")  # they are still fresh


def test_a_surface_in_doubt_for_another_reason_and_an_underlying_without_options_are_not_contradicted():
    desk = Fitting(pricing={"surface": {"answer_s": 1e6, "stale_s": 20.0}}).trusting(vol=0.5)
    desk.pass_time(21_000)
    desk.smile = (0.9, 0.0)
    desk.decide()
    assert desk.why.startswith("stale: ") and desk.state.market.surfaces.why[1] == ""


def test_switched_off_there_is_neither_question_nor_doubt_nor_surface():
    off = {"surface": {"enabled": False}}
    desk = Fitting(pricing=off)
    desk.settle()
    assert not asked(desk.decide()) and not desk.view.surface_doubt.any()
    desk = Fitting().trusting(vol=0.5)
    assert desk.view.iv_source[ATM_CALL] == IvSource.SURFACE
    pricing = PricingParameters.model_validate(off)
    event = ParametersReloaded(
        desk.now_ns, desk.params.model_copy(update={"pricing": pricing}).model_dump_json(), "test"
    )
    desk.params = reload(desk.state, event)
    desk.feed(event)
    assert not any(asked(desk.decide()) for _ in range(60))
    assert desk.view.iv_source[ATM_CALL] == IvSource.QUOTES and not desk.view.surface_doubt.any()
    assert desk.state.market.surfaces.fitted == [None, None]


def test_when_the_last_option_ended_there_is_nothing_left_to_doubt():
    desk = Fitting().trusting()
    desk.now_ns = EXPIRY_NS + S
    desk.quote()
    assert not desk.view.surface_doubt.any() and desk.why == ""


# --- valuing -----------------------------------------------------------------------------------------


def test_an_option_nobody_quotes_is_valued_from_the_surface_and_not_modelled():
    desk = Fitting()
    desk.skip = {DEEP_CALL}
    desk.positions = {DEEP_CALL: 100}
    desk.trusting(vol=0.5)
    v = desk.view
    assert IvSource(int(v.iv_source[DEEP_CALL])) is IvSource.SURFACE and not v.modelled[DEEP_CALL]
    assert v.iv[DEEP_CALL] == pytest.approx(0.5, rel=1e-6)
    tau = (EXPIRY_NS - desk.now_ns) / YEAR_NS
    g = black.greeks(v.forward_price[DEEP_CALL], 70_000.0, tau, 0.5, True)
    per_coin = float(g.delta) - float(g.price) / v.forward_price[DEEP_CALL]
    assert v.delta_per_lot[DEEP_CALL] == pytest.approx(0.1 * 80_000.0 * per_coin, rel=1e-6)
    assert (v.iv_source[FIRST : FIRST + len(CHAIN)] == IvSource.SURFACE).all()  # the others, too: quoted at 60 %


def test_beyond_what_quotes_say_an_option_goes_by_its_own_and_without_them_is_extrapolated():
    desk = Fitting().trusting(vol=0.5, wide=0.0)  # known up to 1.5 standard deviations
    v = desk.view
    assert v.iv_source[ATM_CALL] == IvSource.SURFACE
    assert v.iv_source[DEEP_CALL] == v.iv_source[DEEP_CALL + 1] == IvSource.QUOTES
    desk.skip = {DEEP_CALL}
    for _ in range(4):
        desk.pass_time(4_000)
        desk.quote()
    v = desk.view
    assert v.iv_source[DEEP_CALL] == IvSource.EXTRAPOLATED and v.modelled[DEEP_CALL]
    assert v.iv[DEEP_CALL] == pytest.approx(0.5, rel=1e-6)


def test_a_surface_in_doubt_still_serves_where_nothing_better_is_known_for_a_while():
    desk = Fitting(pricing={"surface": {"stale_s": 20.0, "answer_s": 1e6}, "keep_iv_s": 60.0}).trusting(vol=0.5)
    desk.decide()
    desk.skip = set(range(FIRST, FIRST + len(CHAIN)))
    seen = []
    for _ in range(14):
        desk.pass_time(10_000)
        desk.quote()
        seen.append(IvSource(int(desk.view.iv_source[ATM_CALL])))
        assert np.isfinite(desk.view.exposure_usd).all()
    kinds = list(dict.fromkeys(seen))
    assert kinds == [IvSource.SURFACE, IvSource.EXTRAPOLATED, IvSource.LAST, IvSource.PRIOR]


@pytest.mark.parametrize("dynamics", ["black", "sticky_moneyness"])
def test_between_fits_an_option_keeps_its_volatility_or_the_smile_moves_with_the_forward(dynamics):
    desk = Fitting(pricing={"smile_delta": dynamics}).trusting(vol=0.5, slope=-0.4)
    k = math.log(90_000.0 / 80_000.0)
    before = desk.view
    assert before.iv[OTM_CALL] == pytest.approx(0.5 - 0.4 * k, rel=1e-4)
    desk.prices["BTC"] = desk.forward = 80_300.0
    desk.pass_time(100)
    desk.quote()
    v = desk.view
    moved = -0.4 * math.log(80_000.0 / v.forward_price[OTM_CALL]) if dynamics == "sticky_moneyness" else 0.0
    assert v.forward_price[OTM_CALL] == pytest.approx(80_300.0, rel=1e-4)
    assert v.iv[OTM_CALL] - before.iv[OTM_CALL] == pytest.approx(moved, abs=1e-6)


def test_the_delta_of_a_smile_that_moves_is_that_of_prices_by_finite_differences():
    # Two strikes an expiry: nothing but the surface tells a slope.
    chain = tuple(
        option(strike, call, EXPIRY_NS + days * DAY, f"BTC-{days}-{strike:.0f}-{call}")
        for days in (0, 7)
        for strike in (90_000.0, 80_000.0)
        for call in (True, False)
    )
    desk = Fitting(chain=chain, pricing={"smile_delta": "sticky_moneyness"}).trusting(vol=0.5, slope=-0.4)
    v, row = desk.view, FIRST
    tau, F = (EXPIRY_NS - desk.now_ns) / YEAR_NS, float(v.forward_price[row])

    def price(forward: float) -> float:
        return float(black.price(forward, 90_000.0, tau, 0.5 - 0.4 * math.log(90_000.0 / forward), True))

    delta = (price(F + 1.0) - price(F - 1.0)) / 2.0
    assert v.delta_per_lot[row] == pytest.approx(0.1 * 80_000.0 * (delta - price(F) / F), rel=1e-3)


def test_scenarios_revalue_an_option_at_the_surfaces_volatility():
    desk = Fitting().trusting(vol=0.45)
    v = desk.view
    gain = gain_per_lot(v, np.array([ATM_CALL]))[:, 0].reshape(-1)[: len(MOVES) * len(VOLS)]
    tau, F = (EXPIRY_NS - desk.now_ns) / YEAR_NS, float(v.forward_price[ATM_CALL])
    same = gain.reshape(len(MOVES), len(VOLS))[:, VOLS.tolist().index(0.0)]
    now = float(black.price(F, 80_000.0, tau, 0.45, True)) / F
    worth = 80_000.0 * (1.0 + MOVES) * (black.price(F * (1.0 + MOVES), 80_000.0, tau, 0.45, True) / (F * (1.0 + MOVES)))
    np.testing.assert_allclose(same, 0.1 * (worth - 80_000.0 * (1.0 + MOVES) * now), rtol=1e-6, atol=1e-3)


def test_contracts_listed_since_are_valued_from_the_surface_between_its_expiries():
    desk = Fitting().trusting(vol=0.5)
    assert desk.view.iv_source[ATM_CALL] == IvSource.SURFACE
    new = option(80_000.0, True, EXPIRY_NS - 3 * DAY, "BTC-29SEP26-80000-C")
    desk.feed(InstrumentsListed(desk.now_ns, 0, (new,)))
    desk.rows.append(new)
    v = desk.view
    assert v.iv_source[-1] == IvSource.EXTRAPOLATED and v.iv[-1] == pytest.approx(0.5, rel=1e-6)
    assert v.iv_source[ATM_CALL] == IvSource.SURFACE
    (command,) = asked(desk.decide()) or [desk.ask(4.9)]
    assert EXPIRY_NS - 3 * DAY in command.chain.expiries


# --- trading -----------------------------------------------------------------------------------------


def test_in_doubt_no_option_is_opened_and_delta_is_hedged_all_the_same():
    factors = {"factors": {"vega:BTC": {"usd": 500.0, "band_usd": 50.0}}}
    desk = Fitting(target=400_000.0, allocator=factors)
    desk.settle()
    # Its delta is where it should be: what would be refused is not wanted, nor anything traded against it.
    for _ in range(5):
        decision = desk.decide()
        assert decision.record is not None and not creates(decision)
        assert "surface" not in [clip.limit for clip in decision.record.clips]
    desk = Fitting(target=400_000.0, allocator=factors)
    desk.settle()
    (command,) = asked(desk.decide())
    desk.answer(command)
    bought = [desk.rows[order.row].kind for _ in range(5) for order in creates(desk.decide())]
    assert Kind.OPTION in bought
    desk = Fitting(target=400_000.0)
    desk.positions = {ATM_CALL: 100}
    desk.settle()
    hedges = creates(desk.decide())
    assert desk.why == "none yet" and [order.row for order in hedges] and hedges[0].side.sign < 0
    assert {desk.rows[order.row].kind for order in hedges} == {Kind.PERPETUAL}


# --- the same again ----------------------------------------------------------------------------------


def test_an_answer_survives_being_written_and_read_and_a_replay_of_it_decides_the_same():
    desk = Fitting(target=400_000.0)
    desk.positions = {ATM_CALL: -100, BTC_PERP: 1_000}
    desk.trusting(vol=0.5, slope=-0.2)
    for vol in (0.5, 0.9, 0.91):
        desk.answer(desk.ask(), vol=vol)
        desk.decide()
    written = msgspec.msgpack.encode(desk.events)
    read = msgspec.msgpack.decode(written, type=list[AnyEvent])
    assert msgspec.msgpack.encode(read) == written
    assert sum(isinstance(event, SurfaceFitted) for event in read) == 4
    state, params = begin(desk.started)
    again = [step(state, event, params) for event in read]
    told = [decision for decision in again if decision.record is not None]
    assert msgspec.msgpack.encode(told) == msgspec.msgpack.encode(desk.decisions)
    assert any(asked(decision) for decision in told)


def test_what_is_asked_for_can_be_fitted_and_comes_back_as_a_surface_to_value_from():
    desk = Fitting()
    desk.settle()
    (command,) = asked(desk.decide())
    chain = msgspec.msgpack.decode(msgspec.msgpack.encode(command.chain), type=Chain)
    desk.feed(msgspec.structs.replace(fit(chain, command.max_iv_spread), ts_recv_ns=desk.now_ns))
    v = desk.view
    assert desk.why == "" and v.iv_source[ATM_CALL] == IvSource.SURFACE
    np.testing.assert_allclose(v.iv[FIRST : FIRST + len(CHAIN)], SMILE, atol=0.01)
