"""Which of our orders count: the short list of live ones says the same as a look at all of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.commands import CreateOrder
from dea_daemon.domain.events import CreateRefused, CreateUnknown, VenueOrderState
from dea_daemon.domain.orders import TERMINAL
from tests.house import Run, creates


def live(run: Run) -> set[str]:
    return {order.client_order_id for order in run.state.account.orders.live()}


def looked_for(run: Run) -> set[str]:
    """The same by looking at every order there is."""
    own = run.state.account.orders.own
    return {key for key, order in own.items() if order.state not in TERMINAL or order.in_flight_lots}


def one_order() -> tuple[Run, CreateOrder]:
    run = Run().settle()
    (order,) = creates(run.decide())
    return run, order


def test_an_ended_order_lives_again_when_the_venue_tells_of_a_late_execution():
    run, order = one_order()
    run.seen(order, VenueOrderState.CANCELLED)
    assert not live(run)
    run.seen(order, VenueOrderState.FILLED, order.lots)
    assert live(run) == {order.client_order_id}
    run.fill(order, order.lots)
    assert not live(run)


NEWS = st.sampled_from(["open", "cancelled", "rejected", "part", "ahead", "refused", "unknown", "tick", "look"])


@settings(max_examples=60, deadline=None)
@given(news=st.lists(st.tuples(NEWS, st.integers(0, 3)), max_size=25))
def test_the_short_list_never_misses_an_order_and_keeps_none_that_is_settled(news):
    run, first = one_order()
    sent = [first]
    for what, which in news:
        order = sent[which % len(sent)]
        match what:
            case "open" | "cancelled" | "rejected":
                run.seen(order, VenueOrderState[what.upper()])
            case "ahead":
                run.seen(order, VenueOrderState.OPEN, order.lots // 2)
            case "part":
                run.fill(order, max(1, order.lots // 3))
            case "refused":
                run.feed(CreateRefused(run.now_ns, order.client_order_id, True, "no"))
            case "unknown":
                run.feed(CreateUnknown(run.now_ns, order.client_order_id, "timeout"))
            case "tick":
                sent += creates(run.decide())
            case _:
                assert live(run) == looked_for(run)
    assert live(run) == looked_for(run)
