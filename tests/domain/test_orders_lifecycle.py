"""The order lifecycle: a table, and the laws that hold whatever arrives in whatever order."""

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.commands import CancelOrder, CreateOrder
from dea_daemon.domain.events import FillReceived, OrderSeen, VenueOrderState
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.orders import (
    LIFE,
    NEVER_LIVED,
    NEXT,
    TERMINAL,
    Order,
    OrderInput,
    OrderState,
    TimeInForce,
    client_order_id,
    epoch_of,
    is_own,
)
from dea_daemon.state.effects import Effects
from dea_daemon.state.orders import OrderBookkeeping

S, I = OrderState, OrderInput  # noqa: E741
LOTS = 12

# (state, input) pairs without a row: each contradicts what the venue or we have said before.
SURPRISES = {
    # We cancel, or prove absent, only what was sent and answered or given up on.
    **{(S.PENDING, i): "not asked yet" for i in (I.CANCEL_SENT, I.CANCEL_REFUSED, I.CANCEL_UNKNOWN, I.PROVED_ABSENT)},
    # A refusal of what the venue has shown to live, and absence of it.
    **{(s, I.CREATE_REFUSED): "it lived" for s in (S.OPEN, S.CANCELLING, S.FILLED, S.CANCELLED)},
    **{(s, I.PROVED_ABSENT): "it lived" for s in (S.OPEN, S.CANCELLING, S.FILLED, S.CANCELLED)},
    **{(s, I.SEEN_REJECTED): "it lived" for s in (S.FILLED, S.CANCELLED)},
    # Two different ends.
    (S.FILLED, I.SEEN_CANCELLED): "two ends",
    (S.CANCELLED, I.SEEN_FILLED): "two ends",
    # Life in what was said never to have lived; and no proof of what is settled.
    **{(s, i): "it never lived" for s in NEVER_LIVED for i in (*LIFE, I.SEEN_FILLED, I.SEEN_CANCELLED, I.LAST_FILL)},
    **{(s, I.PROVED_ABSENT): "settled" for s in NEVER_LIVED},
}
OURS = {I.CREATE_UNKNOWN, I.CANCEL_SENT, I.CANCEL_UNKNOWN}  # inputs that are not the venue's word


def test_every_pair_has_a_row_or_is_a_documented_surprise():
    pairs = set(itertools.product(S, I))
    assert set(NEXT) | set(SURPRISES) == pairs
    assert not set(NEXT) & set(SURPRISES)


def test_only_the_venues_word_ends_an_order():
    for (state, what), after in NEXT.items():
        if after in TERMINAL and state not in TERMINAL:
            assert what not in OURS, (state, what)


def test_no_row_leads_out_of_an_end_but_to_the_fill_that_completes_it():
    leaving = {pair for pair, after in NEXT.items() if pair[0] in TERMINAL and after is not pair[0]}
    assert leaving == {(S.CANCELLED, I.LAST_FILL)}


def test_every_state_but_the_first_is_reached_from_it():
    reached, fringe = {S.PENDING}, {S.PENDING}
    while fringe:
        fringe = {after for (state, _), after in NEXT.items() if state in fringe} - reached
        reached |= fringe
    assert reached == set(S)


# --- what the venue does to an order, and every order in which we may hear of it --------------------------


def seen(state: VenueOrderState, filled: int, ts: int) -> OrderSeen:
    return OrderSeen(ts, ts, 0, 0, "o", "V1", state, Side.BUY, LOTS, filled, 100)


def fill(trade: int, lots: int, ts: int) -> FillReceived:
    return FillReceived(ts, ts, 0, 0, f"T{trade}", "V1", "o", Side.BUY, lots, 100, 0.0, "BTC", True)


@st.composite
def histories(draw):
    """What one order goes through at the venue, as messages: acknowledged, filled in parts, ended or not."""
    parts = draw(st.lists(st.integers(1, 5), max_size=4))
    while sum(parts) > LOTS:
        parts.pop()
    messages: list[OrderSeen | FillReceived] = [seen(VenueOrderState.OPEN, 0, 1)]
    done = 0
    for k, lots in enumerate(parts):
        done += lots
        messages.append(fill(k, lots, 2 + k))
        state = VenueOrderState.FILLED if done == LOTS else VenueOrderState.OPEN
        messages.append(seen(state, done, 2 + k))
    if done < LOTS and draw(st.booleans()):
        messages.append(seen(VenueOrderState.CANCELLED, done, 20))
    return messages, done


def bookkeeping() -> tuple[OrderBookkeeping, Order]:
    book = OrderBookkeeping()
    create = CreateOrder("o", 0, Side.BUY, LOTS, 100, TimeInForce.GTC, False, False, 10, 1, "test")
    return book, book.sent(create, 1)


@settings(max_examples=300, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.lists(st.sampled_from(["timeout", "cancel"]), max_size=3))
def test_whatever_the_order_of_news_nothing_is_lost_or_counted_too_low(history, random, ours):
    """Fills once each (the caller drops repeats), news repeated and shuffled, our own timeouts and cancels between."""
    messages, filled_at_venue = history
    news = messages + [m for m in messages if isinstance(m, OrderSeen) and random.random() < 0.3] + ours
    random.shuffle(news)
    book, order = bookkeeping()
    effects = Effects()
    heard, last_filled = 0, 0
    ended_by_venue = False
    for item in news:
        if item == "timeout":
            book.advance(order, I.CREATE_UNKNOWN, 1, effects)
        elif item == "cancel" and order.state in (S.OPEN, S.UNKNOWN):
            book.cancel_sent(CancelOrder("o", 0, "V1", "test"), 1, effects)
        elif isinstance(item, FillReceived):
            book.filled(item, effects)
            heard += item.lots
        elif isinstance(item, OrderSeen):
            book.seen(item, effects)
            ended_by_venue |= item.state is not VenueOrderState.OPEN
        assert order.filled_lots == heard >= last_filled
        last_filled = order.filled_lots
        assert order.state not in TERMINAL or ended_by_venue or heard == LOTS
        # What the venue has executed is either in the position or still counted as coming.
        may_come = filled_at_venue if ended_by_venue or heard == LOTS else LOTS
        assert order.filled_lots + order.in_flight_lots >= may_come
        assert 0 <= order.filled_lots + order.in_flight_lots <= LOTS
    assert not book.surprised
    if ended_by_venue:
        assert order.state in TERMINAL and order.in_flight_lots == 0


@given(st.sampled_from(sorted(NEVER_LIVED)), st.booleans())
def test_an_order_said_never_to_have_lived_counts_again_at_the_first_sign_of_life(state, by_fill):
    book, order = bookkeeping()
    order.state = state
    effects = Effects()
    if by_fill:
        book.filled(fill(1, 2, 5), effects)
    else:
        book.seen(seen(VenueOrderState.OPEN, 0, 5), effects)
    assert book.surprised == {0}
    assert order.state is S.UNKNOWN and order in book.live()
    assert order.filled_lots + order.in_flight_lots == LOTS


def test_an_answer_that_comes_after_the_proof_of_absence_is_no_surprise():
    for late in (I.CREATE_REFUSED, I.CREATE_UNKNOWN, I.CANCEL_REFUSED, I.CANCEL_UNKNOWN, I.SEEN_REJECTED):
        book, order = bookkeeping()
        order.state = S.ABSENT
        assert book.advance(order, late, 5, Effects())
        assert order.state is S.ABSENT and not book.surprised


def test_the_answer_to_a_cancel_given_up_on_is_no_surprise():
    book, order = bookkeeping()
    effects = Effects()
    book.seen(seen(VenueOrderState.OPEN, 0, 1), effects)
    book.cancel_sent(CancelOrder("o", 0, "V1", "test"), 2, effects)
    book.overdue(10_000_000_000, 3_000, effects)
    assert order.state is S.OPEN and order.doubted
    assert book.advance(order, I.CANCEL_UNKNOWN, 11, effects)
    assert book.advance(order, I.CANCEL_REFUSED, 12, effects)
    assert order.state is S.OPEN


# --- client order ids -----------------------------------------------------------------------------------


@given(st.integers(0, 32**2 - 1), st.integers(0, 32**5 - 1), st.integers(0, 32**8 - 1))
def test_a_client_order_id_tells_its_epoch_and_is_known_as_ours(account, epoch, sequence):
    label = client_order_id(account, epoch, sequence)
    assert is_own(label) and len(label) <= 32 and label.isalnum()
    assert epoch_of(label) == epoch
    assert client_order_id(account, epoch, sequence ^ 1) != label


def test_other_labels_are_not_ours():
    for label in ("", "by hand", "d", "x00000000000000a", "d00000000000000Z", "d" * 32):
        assert not is_own(label)


def test_an_order_survives_its_own_encoding():
    _, order = bookkeeping()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=Order) == order
