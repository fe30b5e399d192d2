"""Deliveries in the ledger: a position ends with its contract once, and it is written how that is known."""

import math
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from dea_daemon.domain.errors import LedgerError
from dea_daemon.domain.events import PoolReport, Settlement
from dea_daemon.domain.instruments import Kind, Payoff, Universe
from dea_daemon.domain.orders import OrderState
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_history import POSITION_REPORT, VENUE_RECORD
from tests.shell.ledger_samples import BTC, ETH, HOUR, MAIN, NOW, OTHER, S, booked, instrument, order, record

DAY = 24 * HOUR
OPTION = replace(
    instrument("BTC-2FEB26-70000-C", "0.1", "0.0001"),
    kind=Kind.OPTION, payoff=Payoff.LINEAR, quote_currency="BTC", strike=70_000.0, is_call=True, expiry_ns=NOW - HOUR,
)  # fmt: skip
LATER = replace(OPTION, name="BTC-9FEB26-70000-C", expiry_ns=NOW + 7 * DAY)


def universe() -> Universe:
    """The option is row 1 of the first account and row 2 of the second."""
    return Universe((MAIN, OTHER), ((0, BTC), (0, OPTION), (1, OPTION)))


ENDED = Settlement(0, 1, NOW - HOUR, -25, 71_234.5, -0.0123, "BTC")
GONE = Settlement(0, 1, NOW - HOUR, -25, math.nan, math.nan, "BTC")


def kept(ledger: Ledger, columns: str = "account, instrument, lots, price, profit, currency, proof"):
    db = sqlite3.connect(ledger.path)
    try:
        return db.execute(f"SELECT {columns} FROM settlements ORDER BY account, instrument").fetchall()  # noqa: S608 - ours
    finally:
        db.close()


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def test_a_delivery_is_kept_with_its_proof(ledger):
    ledger.write(Batch(settlements=[(ENDED, VENUE_RECORD)]), universe(), NOW)
    assert kept(ledger) == [("deribit/main", OPTION.name, -25, 71_234.5, -0.0123, "BTC", "venue record")]
    assert kept(ledger, "ts_ns, recorded_ns, lot_size") == [(NOW - HOUR, NOW, "0.1")]


def test_a_delivery_without_the_venues_time_is_at_the_contracts_expiry(ledger):
    ledger.write(Batch(settlements=[(replace(GONE, ts_event_ns=0), POSITION_REPORT)]), universe(), NOW)
    assert kept(ledger, "ts_ns, price, profit") == [(OPTION.expiry_ns, None, None)]


def test_a_second_delivery_of_one_position_is_left_out_and_said(ledger):
    ledger.write(Batch(settlements=[(ENDED, VENUE_RECORD)]), universe(), NOW)
    again = Batch(settlements=[(replace(ENDED, lots=7), VENUE_RECORD), (GONE, POSITION_REPORT)])
    with capture_logs() as told:
        ledger.write(again, universe(), NOW + S)
    assert [one["event"] for one in told] == ["settlement.repeated"] * 2
    assert "deribit/main BTC-2FEB26-70000-C: 7 lots by venue record" in told[0]["what"]
    assert kept(ledger, "lots, profit, recorded_ns") == [(-25, -0.0123, NOW)] and not again


def test_the_venues_record_completes_what_a_position_report_had_shown(ledger):
    ledger.write(Batch(settlements=[(GONE, POSITION_REPORT)]), universe(), NOW)
    with capture_logs() as told:
        ledger.write(Batch(settlements=[(ENDED, VENUE_RECORD)]), universe(), NOW + S)
    assert kept(ledger, "profit, proof, recorded_ns") == [(-0.0123, "venue record", NOW)] and not told


def test_the_same_contract_is_delivered_in_each_account_by_itself(ledger):
    other = replace(ENDED, account=1, row=2)
    ledger.write(Batch(settlements=[(ENDED, VENUE_RECORD), (other, VENUE_RECORD)]), universe(), NOW)
    assert [row[0] for row in kept(ledger)] == ["deribit/main", "deribit/other"]


def test_a_delivery_is_written_with_its_decision_or_not_at_all(ledger):
    waiting = Batch(settlements=[(ENDED, VENUE_RECORD)], decisions=[record(1, cause=object())])
    with pytest.raises(LedgerError):
        ledger.write(waiting, universe(), NOW)
    assert kept(ledger) == [] and len(waiting.settlements) == 1
    ledger.write(waiting, universe(), NOW)
    assert len(kept(ledger)) == 1 and not waiting


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(-9, 9), st.booleans()), max_size=12))
def test_however_often_it_is_told_a_position_ends_once(tmp_path_factory, tellings):
    ledger = Ledger.open(tmp_path_factory.mktemp("ledger") / "ledger.sqlite")
    for row, lots, proved in tellings:
        told = replace(ENDED, account=row - 1, row=row, lots=lots)
        ledger.write(Batch(settlements=[(told, VENUE_RECORD if proved else POSITION_REPORT)]), universe(), NOW)
    found = kept(ledger, "account, lots, proof")
    ledger.close()
    for row, account in ((1, "deribit/main"), (2, "deribit/other")):
        mine = [(lots, proved) for told_row, lots, proved in tellings if told_row == row]
        best = next((one for one in mine if one[1]), mine[0] if mine else None)
        rows = [(lots, proof == VENUE_RECORD) for owner, lots, proof in found if owner == account]
        assert rows == ([best] if best else [])


# --- a universe that grows ----------------------------------------------------------------------------------


def test_contracts_listed_while_running_are_stored_when_they_join(ledger):
    growing = universe()
    ledger.write(Batch(fills=[booked("t1")]), growing, NOW)
    growing.extend(((0, LATER), (1, LATER)))
    fills = [booked("t2", row=3), booked("t3", account=1, row=4)]
    ledger.write(
        Batch(intents=[order(1, row=3)], fills=fills, settlements=[(replace(ENDED, row=3), VENUE_RECORD)]), growing, NOW
    )
    db = sqlite3.connect(ledger.path)
    stored = db.execute("SELECT account, instrument, expiry_ns FROM instruments ORDER BY 1, 2").fetchall()
    db.close()
    assert stored == [
        ("deribit/main", "BTC-2FEB26-70000-C", NOW - HOUR), ("deribit/main", "BTC-9FEB26-70000-C", NOW + 7 * DAY),
        ("deribit/main", "BTC-PERPETUAL", 0),
        ("deribit/other", "BTC-2FEB26-70000-C", NOW - HOUR), ("deribit/other", "BTC-9FEB26-70000-C", NOW + 7 * DAY),
    ]  # fmt: skip
    assert [row[1] for row in kept(ledger)] == [LATER.name]


def test_contracts_that_joined_in_a_write_that_failed_join_in_the_next(ledger):
    growing = universe()
    ledger.write(Batch(fills=[booked("t1")]), growing, NOW)
    growing.extend(((0, LATER),))
    waiting = Batch(fills=[booked("t2", row=3)], decisions=[record(1, cause=object())])
    with pytest.raises(LedgerError):
        ledger.write(waiting, growing, NOW)
    ledger.write(waiting, growing, NOW)
    db = sqlite3.connect(ledger.path)
    assert db.execute("SELECT count(*) FROM instruments").fetchone() == (4,)
    db.close()


def test_of_each_day_the_last_marks_stay(ledger):
    pools = {(0, "BTC"): PoolReport("BTC", 1.0, 1.0, 0.0, 0.0)}
    midnight = NOW - NOW % DAY + DAY
    for at_ns, mark in ((midnight - 7_200 * S, 0.01), (midnight - 3_600 * S, 0.02), (midnight + S, math.nan)):
        ledger.write(Batch(pools=dict(pools), marks={1: mark}), universe(), at_ns)
    db = sqlite3.connect(ledger.path)
    assert db.execute("SELECT day, ts_ns, mark_price FROM marks ORDER BY day").fetchall() == [
        (midnight // DAY - 1, midnight - 3_600 * S, 0.02), (midnight // DAY, midnight + S, None),
    ]  # fmt: skip
    db.close()


# --- after a restart ----------------------------------------------------------------------------------------


def test_deliveries_of_the_last_week_are_known_in_todays_account_numbers(ledger):
    other = replace(ENDED, account=1, row=2, ts_event_ns=NOW - 8 * DAY)
    ledger.write(Batch(settlements=[(ENDED, VENUE_RECORD), (other, POSITION_REPORT)]), universe(), NOW)
    swapped = Universe((OTHER, MAIN), ((0, BTC), (1, ETH)))
    assert ledger.recover(swapped, NOW).settled == ((1, OPTION.name),)
    assert ledger.recover(swapped, NOW - 2 * DAY).settled == ((0, OPTION.name), (1, OPTION.name))
    assert ledger.recover(Universe((OTHER,), ((0, BTC),)), NOW).settled == ()


@pytest.mark.parametrize("listed", [True, False])
def test_nothing_is_expected_of_a_contract_whose_delivery_is_recorded(ledger, listed):
    waiting = order(2, row=1, state=OrderState.FILLED, venue_filled_lots=10, created_ns=NOW - 3 * HOUR)
    ledger.write(Batch(intents=[order(1), waiting], settlements=[(ENDED, VENUE_RECORD)]), universe(), NOW)
    now = universe() if listed else Universe((MAIN, OTHER), ((0, BTC),))
    recovered = ledger.recover(now, NOW)
    assert [one.client_order_id for one in recovered.restored] == [order(1).client_order_id]
    assert recovered.orphans == ()
    assert recovered.trade_cursor_ms > (NOW - HOUR) // 10**6  # and its fills are not asked for


def test_an_order_in_an_expired_contract_is_asked_for_while_it_is_listed_and_is_no_orphan_after(ledger):
    ledger.write(Batch(intents=[order(1, row=1)]), universe(), NOW - 2 * HOUR)
    assert len(ledger.recover(universe(), NOW).restored) == 1
    gone = Universe((MAIN, OTHER), ((0, BTC),))
    assert (ledger.recover(gone, NOW).restored, ledger.recover(gone, NOW).orphans) == ((), ())
    assert len(ledger.recover(gone, NOW - 2 * HOUR).orphans) == 1  # it had not expired: where is it?
