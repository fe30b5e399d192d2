"""What measured orders teach the allocator about costs, and how carefully it is told."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from dea_daemon.domain.instruments import Side
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.parameters import ExecutionParameters
from dea_daemon.execution.costs import CostMemory, surcharge
from dea_daemon.execution.estimates import LOSING_ORDERS, VOLUME_USD, Estimate, Estimates, lesson
from dea_daemon.execution.plan import ExecutionMemory, observe, plan
from dea_daemon.execution.shortfall import Measurement
from tests.allocator.forecasts import forecast
from tests.execution.test_plan import creates, permit
from tests.guards.views import view
from tests.house import BTC_FUTURE, BTC_LINEAR, BTC_PERP, ETH_PERP, START_NS

PARAMS = ExecutionParameters()
FORECAST = forecast(np.array([0.6, 0.8]))
DAY_VOL_BP = 0.6 / 365**0.5 * 1e4
HALF_BP = 1.0 / 80_000 * 1e4


def order(placed, slippage_bp, *, filled=1.0, waited_bp=0.0, usd=8_000.0, row=BTC_LINEAR, fee_bp=0.0):
    """A measured order that paid so much beyond the half spread of its arrival, and its shortfall."""
    v = view()
    lot_usd = float(v.notional_per_lot_usd[row])
    lots = round(usd / lot_usd)
    m = Measurement("d1", row, Side.BUY, lots, placed, 0, 1, 1, 80_000.0, 80_000.0, 1.0, lot_usd, 1e-4)
    done = round(lots * filled)
    price = 80_000.0 * (1.0 + (slippage_bp + HALF_BP) * 1e-4)
    if done:
        m.filled(done, price, price, fee_bp * 1e-4 * done * lot_usd)
    m.ended(2, 80_000.0 * (1.0 + waited_bp * 1e-4))
    return m, m.shortfall(v, going_on=True, watched=True)


def taught(*orders, params=PARAMS):
    estimates = Estimates()
    for m, found in orders:
        estimates.learn(lesson(m, found, view(), FORECAST), params)
    return estimates


def told(estimates, days, params=PARAMS):
    """[N] after so many days, a step an hour."""
    for hour in range(round(days * 24) + 1):
        estimates.advance(view(now_ns=START_NS + hour * NS_PER_DAY // 24), params)
    return estimates.surcharge(view(), params)


def test_before_anything_was_measured_the_costs_are_left_as_they_are():
    assert not surcharge(CostMemory(), view(), PARAMS).any()
    assert not told(taught(), 10).any()


def test_a_planted_impact_is_found_again_through_noise():
    rng, orders = np.random.default_rng(5), []
    for usd in rng.uniform(2e3, 5e5, 3_000):
        slippage = 0.5 + 0.8 * DAY_VOL_BP * (usd / VOLUME_USD) ** 0.5 + rng.standard_t(3)
        orders.append(order("cross", slippage, usd=usd, fee_bp=5.0))
    (known,) = taught(*orders).by_key.values()
    for usd in (1e4, 1e5, 4e5):
        root = (usd / VOLUME_USD) ** 0.5
        truth = 0.5 + 0.8 * DAY_VOL_BP * root
        assert np.array(known.impact) @ [1.0, DAY_VOL_BP * root] == pytest.approx(truth, rel=0.2)


def test_one_wild_order_moves_the_estimate_no_more_than_a_dear_one():
    calm = [order("cross", 1.0)] * 30
    dear, wild = (taught(*calm, order("cross", bp)) for bp in (20.0, 2_000.0))
    (one,), (other,) = dear.by_key.values(), wild.by_key.values()
    assert other.bp == pytest.approx(one.bp, rel=1e-3)


def test_few_orders_are_believed_little_and_many_fully():
    few, many = (next(iter(taught(*[order("cross", 4.0)] * n).by_key.values())).bp for n in (5, 5_000))
    assert 0.0 < few < 1.0 and many == pytest.approx(4.0, rel=0.15)


def test_what_is_told_moves_a_tenth_of_the_cap_a_day_and_never_beyond_it():
    estimates = taught(*[order("cross", 50.0)] * 3_000)
    first = told(estimates, 1)[BTC_LINEAR]
    assert first == pytest.approx(0.1 * PARAMS.surcharge_most_bp * 1e-4, rel=1e-6)
    estimates = taught(*[order("cross", 50.0)] * 3_000)
    assert told(estimates, 30)[BTC_LINEAR] == pytest.approx(PARAMS.surcharge_most_bp * 1e-4)
    capped = ExecutionParameters(surcharge_most_bp=0.0)
    assert not told(taught(*[order("cross", 50.0)] * 300, params=capped), 30, capped).any()


def test_contracts_that_trade_alike_share_what_was_learned_and_others_do_not():
    learned = told(taught(*[order("cross", 5.0)] * 500), 20)
    assert learned[BTC_PERP] == learned[BTC_LINEAR] > 0.0
    assert learned[BTC_FUTURE] == learned[ETH_PERP] == 0.0


def test_resting_orders_that_fill_save_but_never_more_than_half_spread_and_fees():
    half, fees = HALF_BP * 1e-4, 5e-4
    estimates = taught(*[order("post", -2 * HALF_BP)] * 500)
    (known,) = estimates.by_key.values()
    assert known.bp == pytest.approx(-(5.0 + 2 * HALF_BP) * 500 / 550, rel=1e-3)
    assert told(estimates, 100)[BTC_LINEAR] == pytest.approx(known.bp * 1e-4)
    most = told(taught(*[order("post", -30.0)] * 500), 100)[BTC_LINEAR]
    assert most == pytest.approx(-(half + fees), rel=1e-3)
    mixed = told(taught(*[order("post", -30.0), order("cross", 0.0, fee_bp=5.0)] * 500), 100)[BTC_LINEAR]
    assert mixed == pytest.approx(-(half + fees) * 0.5, rel=1e-2)


def test_the_wait_of_unfilled_orders_is_counted_against_resting():
    (known,) = taught(*[order("post", -2 * HALF_BP, filled=0.5, waited_bp=20.0)] * 500).by_key.values()
    assert known.bp > 0.0 and known.losing


def test_what_is_not_known_teaches_nothing():
    m, found = order("cross", 3.0)
    nan = float("nan")
    m.mids = nan
    unknown = m.shortfall(view(), going_on=True, watched=True)
    assert np.isnan(unknown.spread_usd)
    estimates = Estimates()
    estimates.learn(lesson(m, unknown, view(), FORECAST), PARAMS)
    assert not estimates.by_key
    assert not taught(order("restored", 3.0), order("cross", 3.0, filled=0.0)).by_key
    estimates = taught(*[order("cross", 3.0)] * 100)
    (before,) = [known.bp for known in estimates.by_key.values()]
    m, found = order("cross", 3.0)
    estimates.learn(lesson(m, found, view(), replace(FORECAST, annual_vol=np.array([nan, nan]))), PARAMS)
    assert [known.bp for known in estimates.by_key.values()] == [before]


def test_where_waiting_has_lost_orders_cross_at_once_and_after_some_days_they_rest_again():
    estimates = taught(*[order("post", 0.0, filled=0.1, waited_bp=6.0 + n % 3) for n in range(60)])
    v, memory = view(), ExecutionMemory(2)
    work = permit(v, {BTC_PERP: 500, ETH_PERP: 2_000})
    for days, kind in ((0, "cross"), (3, "post")):
        told(estimates, days)
        memory.losing = estimates.losing
        observe(memory, work, PARAMS)
        orders = {o.row: o.why for o in creates(plan(work, memory, PARAMS))}
        assert orders == {BTC_PERP: kind, ETH_PERP: "post"}


def test_a_few_bad_waits_or_none_that_differ_from_luck_change_nothing():
    few, luck = Estimate(), Estimate()
    for _ in range(int(LOSING_ORDERS) - 1):
        few.rest(1.0, 0.0, 1e4)
    for n in range(200):
        luck.rest(0.1 + (5.0 if n % 2 else -5.0), 0.0, 1e4)
    assert not few.losing and not luck.losing


def test_the_surcharge_of_rows_that_have_just_joined_is_none():
    estimates = taught(*[order("cross", 5.0)] * 500)
    told(estimates, 5)
    estimates.group = estimates.group[:-1]
    assert not estimates.surcharge(view(), PARAMS).any()


def test_a_cap_that_is_lowered_holds_at_once():
    estimates = taught(*[order("cross", 50.0)] * 500)
    told(estimates, 30)
    assert estimates.surcharge(view(), ExecutionParameters(surcharge_most_bp=2.0)).max() == pytest.approx(2e-4)


# --- of earlier runs ----------------------------------------------------------------------------------------


def lived(hours, slippage_bp=6.0):
    """A crossing order an hour and, each third hour, a posted one beside it; what each taught, in order."""
    found = []
    for hour in range(hours):
        for placed in ("cross", "post")[: 1 + (hour % 3 == 0)]:
            m, shortfall = order(placed, slippage_bp + hour % 5, usd=4_000.0 + 50.0 * (hour % 7))
            told_at = replace_struct(shortfall, ended_ns=START_NS + hour * NS_PER_DAY // 24)
            found.append(lesson(m, told_at, view(), FORECAST))
    return found


def gone_on(lessons, now_ns):
    """A run that measured them itself, each in its time."""
    estimates = Estimates()
    for each in lessons:
        estimates.advance(view(now_ns=each.ended_ns), PARAMS)
        estimates.learn(each, PARAMS)
    estimates.advance(view(now_ns=now_ns), PARAMS)
    return estimates


def recalled(lessons, now_ns, params=PARAMS):
    estimates = Estimates()
    estimates.recall(lessons, now_ns, params)
    estimates.advance(view(now_ns=now_ns), params)
    return estimates


def test_a_run_that_recalls_begins_where_one_that_had_gone_on_would_be():
    lessons, now_ns = lived(24 * 6), START_NS + 7 * NS_PER_DAY
    before, after = gone_on(lessons, now_ns), recalled(lessons, now_ns)
    v = view(now_ns=now_ns)
    assert before.surcharge(v, PARAMS)[BTC_LINEAR] > 1e-4
    np.testing.assert_allclose(after.surcharge(v, PARAMS), before.surcharge(v, PARAMS), rtol=1e-9)
    (one,), (other,) = before.by_key.values(), after.by_key.values()
    assert other.bp == pytest.approx(one.bp, rel=1e-9) and other.posted == pytest.approx(one.posted)


def test_what_is_recalled_moves_what_is_told_no_faster_than_time_did():
    hours = 30  # and it would be worth ten days of movement
    told_bp = recalled(lived(hours, 40.0), START_NS + hours * NS_PER_DAY // 24).surcharge(view(), PARAMS)[BTC_LINEAR]
    assert told_bp == pytest.approx(0.1 * PARAMS.surcharge_most_bp * 1e-4 * hours / 24, rel=0.05)


def test_lessons_dated_after_the_start_do_not_hold_up_what_is_told_later():
    """The clock was set back between two runs."""
    lessons = lived(24 * 3, 40.0)
    now_ns = START_NS + NS_PER_DAY
    estimates = recalled(lessons, now_ns)
    first = estimates.surcharge(view(), PARAMS)[BTC_LINEAR]
    assert first == pytest.approx(1e-4, rel=0.05)  # no faster than the day that has passed
    estimates.advance(view(now_ns=now_ns + NS_PER_DAY), PARAMS)
    assert estimates.surcharge(view(), PARAMS)[BTC_LINEAR] - first == pytest.approx(1e-4, rel=1e-6)


def test_a_recall_of_nothing_or_of_what_is_not_known_is_none():
    nan = float("nan")
    unknown = [replace_struct(each, beyond_usd=nan) for each in lived(10)]
    unknown += [replace_struct(each, day_vol_bp=nan, asked_usd=0.0, filled_usd=0.0) for each in lived(10)]
    for lessons in ([], unknown):
        estimates = recalled(lessons, START_NS)
        assert not estimates.by_key and not estimates.surcharge(view(), PARAMS).any()


def test_what_was_learned_of_contracts_that_are_gone_is_of_no_others():
    gone = [replace_struct(each, account="deribit/closed") for each in lived(24 * 10)]
    assert not recalled(gone, START_NS + 10 * NS_PER_DAY).surcharge(view(), PARAMS).any()
