"""Rolling budgets against a plain list of everything that ever happened."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.state.budgets import DAY_NS, HOUR_NS, MINUTE_NS, Budgets
from dea_daemon.state.windows import RollingSum
from tests.house import START_NS, Run, S, creates

SPANS = st.sampled_from([MINUTE_NS, HOUR_NS, DAY_NS])
# Moves of the clock as shares of a span, amounts in whole dollars so that sums are exact.
HAPPENED = st.lists(st.tuples(st.sampled_from([0, 1, 3_599, 3_600, 10_000, 200_000]), st.integers(0, 100)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(SPANS, HAPPENED)
def test_a_rolling_sum_forgets_nothing_too_early_and_little_too_late(span_ns, happened):
    """Steps count in parts of 100,000 of the span: from one entry a grain to many spans between two."""
    window, all_of_it, now_ns = RollingSum(span_ns), [], START_NS
    for step, amount in happened:
        now_ns += step * span_ns // 100_000
        window.add(now_ns, amount)
        window.prune(now_ns)
        all_of_it.append((now_ns, amount))
        grain_ns = span_ns // 3_600
        within = sum(a for at, a in all_of_it if at > now_ns - span_ns)
        nearly = sum(a for at, a in all_of_it if at >= now_ns - span_ns - grain_ns)
        assert within <= window.total <= nearly


def budgets(**used: object) -> Budgets:
    return Budgets(Run(**used).started)  # type: ignore[arg-type]


def test_a_run_goes_on_with_what_the_last_one_used():
    new = budgets(hour_turnover_usd=10.0, hour_fees_usd=2.0, day_turnover_usd=30.0, day_fees_usd=1.0, minute_creates=7)
    assert (new.turnover_hour.total, new.turnover_day.total) == (10.0, 30.0)
    assert (new.fees_hour.total, new.fees_day.total) == (2.0, 2.0)  # a day has at least what its last hour had
    assert (new.creates_minute.total, new.creates_hour.total, new.cancels_hour.total) == (7.0, 7.0, 0.0)


def test_an_hour_later_only_the_day_remembers_and_a_day_later_nothing():
    window = budgets()
    window.filled(START_NS, 100.0, 1.0)
    window.created(START_NS)
    window.cancelled(START_NS)
    for after_ns, hour, day in ((MINUTE_NS * 2, 1, 1), (HOUR_NS + 2 * S, 0, 1), (DAY_NS + 60 * S, 0, 0)):
        window.prune(START_NS + after_ns)
        assert (window.turnover_hour.total, window.fees_hour.total) == (100.0 * hour, 1.0 * hour)
        assert (window.turnover_day.total, window.fees_day.total) == (100.0 * day, 1.0 * day)
        assert (window.creates_minute.total, window.creates_hour.total, window.cancels_hour.total) == (0, hour, hour)


def test_what_a_maker_earns_gives_no_budget_back():
    window = budgets()
    window.filled(START_NS, 100.0, 3.0)
    window.filled(START_NS, 100.0, -5.0)
    assert window.fees_hour.total == window.fees_day.total == 3.0


def test_the_view_tells_what_was_traded_sent_and_cancelled():
    run = Run().settle()
    (order,) = creates(run.decide())
    run.fill(order, order.lots)
    run.decide()
    view = run.state.view
    assert view is not None
    assert view.turnover_hour_usd == view.turnover_day_usd == order.lots * 10.0
    assert view.creates_last_hour == view.creates_last_minute == 1
    assert view.cancels_last_hour == 0
