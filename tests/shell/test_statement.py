"""A day's statement against an independent bookkeeper: the simulated venue's accounts."""

import csv
import io
import json
import random
from datetime import date
from decimal import Decimal

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dea_daemon.cli import cli
from dea_daemon.domain.events import AccountReported, PoolReport, PositionReport, Settlement
from dea_daemon.domain.instruments import Kind, Payoff, Side, Universe
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_history import POSITION_REPORT, VENUE_RECORD
from dea_daemon.shell.ledger_schema import MIGRATIONS, migrate
from dea_daemon.shell.statement import days, statement
from dea_daemon.simvenue.accounts import Accounts, Contract
from tests.shell.ledger_samples import MAIN, S, booked, instrument

DAY = 86_400 * S
MIDNIGHT = 20_500 * DAY
TODAY, TOMORROW, THIRD = date(2026, 2, 16), date(2026, 2, 17), date(2026, 2, 18)
MINUTE = 60 * S

INVERSE = instrument("BTC-PERPETUAL")
LINEAR = replace(
    instrument("ETH_USDC-PERPETUAL", lot_size="0.001", tick_size="0.05"),
    payoff=Payoff.LINEAR, quote_currency="USDC", settle_currency="USDC", margin_pool="USDC",
)  # fmt: skip
EXPIRY = MIDNIGHT + DAY + 8 * 3_600 * S
OPTION = replace(
    instrument("BTC-17FEB26-70000-C", "0.1", "0.0001"),
    kind=Kind.OPTION, payoff=Payoff.LINEAR, quote_currency="BTC", strike=70_000.0, is_call=True, expiry_ns=EXPIRY,
    fee_cap=0.125,
)  # fmt: skip
IN_DOLLARS = replace(
    OPTION, name="BTC_USDC-17FEB26-65000-P", quote_currency="USDC", settle_currency="USDC", margin_pool="USDC",
    lot_size=Decimal("0.01"), tick_size=Decimal(5), strike=65_000.0, is_call=False,
)  # fmt: skip
FUTURE = replace(INVERSE, name="BTC-17FEB26", kind=Kind.FUTURE, expiry_ns=EXPIRY)
UNIVERSE = Universe((MAIN,), ((0, INVERSE), (0, LINEAR), (0, OPTION), (0, IN_DOLLARS), (0, FUTURE)))
COIN, USDC, DATED = 2, 3, 4  # rows


class Day:
    """A venue and the ledger of a daemon that trades there. `now_ns` is moved by hand."""

    def __init__(self, path):
        self.ledger = Ledger.open(path)
        self.contracts = {i.name: Contract(i) for i in UNIVERSE.instruments}
        for contract, price in zip(self.contracts.values(), (60_000.0, 3_000.0, 0.05, 1_000.0, 60_000.0), strict=True):
            contract.mark, contract.index = price, 3_000.0 if contract.instrument is LINEAR else 60_000.0
        self.venue = Accounts(self.contracts)
        self.venue.open("main", {"BTC": 5.0, "USDC": 100_000.0})
        self.now_ns = MIDNIGHT + 3_600 * S
        self.batch = Batch()
        self.trades = 0

    def trade(self, row, lots, ticks, fee, heard=True):
        """A fill of signed lots, at the venue and in the ledger; or one the daemon has not heard of, returned."""
        self.now_ns += S // 100
        one = UNIVERSE.instruments[row]
        price = float(one.ticks_to_price(ticks))
        self.venue.trade("main", self.contracts[one.name], lots, price, fee)
        self.trades += 1
        fill = booked(
            f"t{self.trades}", self.now_ns - 5, 100.0, 0.05, ts_recv_ns=self.now_ns, row=row, lots=abs(lots),
            side=Side.BUY if lots > 0 else Side.SELL, price_ticks=ticks, fee=fee, fee_currency=one.settle_currency,
        )  # fmt: skip
        if heard:
            self.batch.fills.append(fill)
        return fill

    def hear_late(self, booked_fill, after_s=1.0):
        """A fill of before, back-filled only now."""
        self.now_ns += int(after_s * S)
        self.batch.fills.append(booked_fill._replace(fill=replace(booked_fill.fill, ts_recv_ns=self.now_ns)))

    def mark(self, row, price):
        self.contracts[UNIVERSE.instruments[row].name].mark = price

    def expire(self, row, price, proof=VENUE_RECORD, heard=True):
        """The venue delivers a position: a future at this price, an option at what it is worth then."""
        self.now_ns += S // 100
        one, account = UNIVERSE.instruments[row], self.venue.by_name["main"]
        before, lots = account.cash[one.settle_currency], account.lots(one.name)
        self.mark(row, price)
        self.venue.settle(self.contracts[one.name], 0.00015 if one.kind is Kind.OPTION else 0.0)
        profit = account.cash[one.settle_currency] - before if proof == VENUE_RECORD else float("nan")
        told = Settlement(0, row, self.now_ns, lots, 61_000.0, profit, one.settle_currency)
        if heard and lots:
            self.batch.settlements.append((told, proof))
        return told

    def adopt(self):
        """The venue's positions are taken over as it reports them."""
        rows = [(row, self.contracts[i.name]) for row, i in enumerate(UNIVERSE.instruments)]
        account = self.venue.by_name["main"]
        held = tuple(
            PositionReport(row, account.lots(c.name), account.holdings[c.name].position.entry_price)
            for row, c in rows
            if c.name in account.holdings
        )
        self.batch.adopted[0] = AccountReported(self.now_ns, 0, self.now_ns, True, (), (), held, ())

    def write(self, after_s=5.0, closing=False, marked=True):
        """Some seconds pass; the daemon writes what it has, with the pools as the venue tells them."""
        self.now_ns += int(after_s * S)
        account = self.venue.by_name["main"]
        for currency, cash in account.cash.items():
            equity, pending = self.venue.equity(account, currency), self.venue.session_funding(account, currency)
            self.batch.pools[0, currency] = PoolReport(currency, equity, cash, 0.0, 0.0, pending)
        marks = {row: self.contracts[UNIVERSE.instruments[row].name].mark for row in (COIN, USDC)}
        self.batch.marks = marks if marked else {}
        self.batch.closing = closing
        self.ledger.write(self.batch, UNIVERSE, self.now_ns)

    def of(self, day=TODAY):
        return statement(self.ledger.path, day)


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path / "ledger.sqlite")
    made.adopt()
    made.write()
    yield made
    made.ledger.close()


def line(found, row):
    return next(one for one in found.contracts if one.contract == UNIVERSE.instruments[row].name)


def pool(found, currency):
    return next(line for line in found.pools if line.currency == currency)


def test_profit_of_an_inverse_contract_is_in_coin_and_of_a_linear_one_in_dollars(day):
    day.trade(0, 6_000, 120_000, 0.0005)  # 60,000 USD at 60,000
    day.trade(0, -6_000, 125_000, 0.0004)  # at 62,500
    day.trade(1, -10_000, 60_000, 15.0)  # 10 ETH at 3,000
    day.trade(1, 4_000, 58_000, 6.0)  # 4 back at 2,900
    day.write(closing=True)
    found = day.of()
    assert pool(found, "BTC").realised == pytest.approx(Decimal("0.04"))  # 60,000 · (1/60,000 − 1/62,500)
    assert pool(found, "USDC").realised == Decimal(400)
    assert pool(found, "BTC").fees == Decimal("0.0009") and pool(found, "USDC").fees == 21
    held = {line.contract: line.held for line in found.contracts}
    assert held == {"BTC-PERPETUAL": 0, "ETH_USDC-PERPETUAL": -6}
    assert found.reconciled, found.pools


@pytest.mark.parametrize("seed", range(5))
def test_any_day_is_explained_to_the_last_digit(day, seed):
    chance = random.Random(seed)
    for _ in range(60):
        row = chance.randrange(2)
        ticks = int((120_000, 60_000)[row] * chance.uniform(0.9, 1.1))
        day.trade(row, chance.choice((-1, 1)) * chance.randint(1, 5_000), ticks, chance.uniform(-0.001, 0.01))
        if chance.random() < 0.3:
            day.write(chance.uniform(0.1, 90))
        if chance.random() < 0.1:
            day.adopt()  # a restart: the venue's own average cost must be ours
            day.write(5)
    day.write(closing=True)
    found = day.of()
    assert found.reconciled and not found.notes, found
    assert abs(pool(found, "BTC").unexplained) < Decimal("1e-10")
    assert pool(found, "BTC").realised != 0 and pool(found, "USDC").realised != 0


def test_days_add_up_and_the_cost_of_a_position_is_carried_over_midnight(day):
    day.trade(1, 10_000, 60_000, 1.0)
    day.write()
    day.now_ns = MIDNIGHT + DAY - 30 * S
    day.write(5)
    day.trade(1, -10_000, 61_000, 1.0)
    day.write(60, closing=True)  # tomorrow
    first, second = day.of(), day.of(TOMORROW)
    assert pool(first, "USDC").realised == 0 and pool(first, "USDC").fees == 1
    assert pool(second, "USDC").realised == 500 and pool(second, "USDC").fees == 1
    assert pool(first, "USDC").cash_end == pool(second, "USDC").cash_start
    assert first.reconciled and second.reconciled
    assert days(day.ledger.path) == [TODAY, TOMORROW]


def test_funding_the_venue_paid_is_told_and_what_is_pending_is_not_in_cash(day):
    day.trade(1, 10_000, 60_000, 0.0)
    contract = day.contracts[LINEAR.name]
    contract.funding_rate = -0.001
    contract.accrue(8 * 3_600 * S)  # 0.001 of 30,000
    day.write(70)
    day.venue.settle_funding(contract)
    contract.accrue(3_600 * S)
    day.write(5, closing=True)
    found = pool(day.of(), "USDC")
    assert found.funding == pytest.approx(Decimal(30), abs=Decimal("1e-6"))
    assert found.pending_end == pytest.approx(Decimal("3.75"), abs=Decimal("1e-6"))
    assert found.reconciled


def test_an_option_is_paid_for_when_bought_in_the_currency_it_is_quoted_in(day):
    day.trade(COIN, 20, 500, 0.0006)  # 2 BTC of options at 0.05
    day.trade(USDC, -100, 160, 1.5)  # 1 BTC of options sold at 800
    day.write(closing=True)
    found = day.of()
    assert pool(found, "BTC").premiums == Decimal("-0.1") and pool(found, "USDC").premiums == 800
    assert pool(found, "BTC").realised == pool(found, "USDC").realised == 0
    assert line(found, COIN).premiums == Decimal("-0.1") and line(found, USDC).premiums == 800
    assert found.reconciled and not found.notes


def test_an_open_options_value_at_the_mark_is_what_equity_has_more_than_cash(day):
    day.trade(COIN, 20, 500, 0.0006)
    day.trade(USDC, -100, 160, 1.5)
    day.write()
    day.mark(COIN, 0.06)
    day.mark(USDC, 700.0)
    day.write(60, closing=True)
    found = day.of()
    assert (line(found, COIN).value_end, line(found, USDC).value_end) == (Decimal("0.12"), -700)
    for one in found.pools:
        assert one.equity_end - one.cash_end == pytest.approx(one.options_end)
    assert [(one.underlying, one.currency, one.premiums, one.fees, one.value_end) for one in found.options] == [
        ("BTC", "BTC", Decimal("-0.1"), Decimal("0.0006"), Decimal("0.12")),
        ("BTC", "USDC", 800, Decimal("1.5"), -700),
    ]


@pytest.mark.parametrize("marked", [True, False])
def test_the_value_of_an_option_without_a_recent_mark_is_not_known(day, marked):
    day.trade(COIN, 20, 500, 0.0)
    day.write()
    day.now_ns += 600 * S
    day.mark(COIN, float("nan"))
    day.write(closing=True, marked=marked)
    found = day.of()
    assert line(found, COIN).value_end is None and pool(found, "BTC").options_end is None
    assert found.options[0].value_end is None and found.reconciled


def test_a_delivery_is_cash_and_its_profit_is_against_what_the_option_had_cost(day):
    day.trade(COIN, 20, 500, 0.0006)  # 2 BTC at 0.05
    day.trade(USDC, -100, 160, 1.5)  # sold, and it expires worthless
    day.write()
    day.expire(COIN, 0.082)  # 0.164 BTC, less a delivery fee of 0.00015 a coin
    day.expire(USDC, 0.0)
    day.write(closing=True)
    found = day.of()
    assert found.reconciled and not found.notes, found
    assert line(found, COIN).settled == pytest.approx(Decimal("0.1637"))
    assert line(found, COIN).realised == pytest.approx(Decimal("0.0637"))
    assert line(found, USDC).settled == 0 and line(found, USDC).realised == 800
    assert line(found, COIN).held == 0 and line(found, COIN).value_end == 0
    assert pool(found, "BTC").settled == line(found, COIN).settled and pool(found, "BTC").realised == 0


def test_options_held_from_before_and_a_dated_future_are_delivered_to_the_cent(tmp_path):
    day = Day(tmp_path / "ledger.sqlite")
    day.trade(COIN, 30, 400, 0.0, heard=False)  # before the daemon's time
    day.trade(DATED, 2_000, 120_000, 0.0, heard=False)
    day.adopt()
    day.write(60)
    day.trade(COIN, -10, 600, 0.0003)
    day.trade(DATED, 1_000, 121_000, 0.00025)
    day.write(60)
    day.expire(COIN, 0.03)
    day.expire(DATED, 61_000.0)
    day.write(60, closing=True)
    day.ledger.close()
    found = day.of()
    assert found.reconciled and not found.notes, found
    coin, dated = line(found, COIN), line(found, DATED)
    assert coin.premiums == Decimal("0.06") and coin.settled == pytest.approx(Decimal("0.0597"))
    # 1 BTC closed at 0.06 and 2 BTC delivered at 0.03, less the delivery's fee, all bought at 0.04
    assert float(coin.realised) == pytest.approx(0.02 - 0.02 - 0.0003)
    assert dated.realised == dated.settled > 0 and dated.held == 0


@pytest.mark.parametrize("after_s", [0.2, 60.0])
def test_a_fill_heard_of_after_the_delivery_still_came_before_it(day, after_s):
    day.trade(COIN, 20, 500, 0.0)
    day.write()
    late = day.trade(COIN, -5, 700, 0.0001, heard=False)
    day.expire(COIN, 0.1)
    day.hear_late(late, after_s)
    day.write(closing=True)
    found = day.of()
    assert found.reconciled and not found.notes and line(found, COIN).held == 0
    # (0.07 − 0.05) · 0.5 BTC by closing, (0.1 − 0.05) · 1.5 BTC by delivery, less its fee
    assert float(line(found, COIN).realised) == pytest.approx(0.01 + 0.075 - 0.000225)


def test_a_fill_of_before_the_first_books_that_the_first_report_brings_is_in_the_adopted_position_alone(tmp_path):
    day = Day(tmp_path / "ledger.sqlite")
    before = day.trade(COIN, 20, 500, 0.0006, heard=False)
    day.now_ns += 10 * S
    day.adopt()
    day.write(0.001)
    day.hear_late(before)
    day.write(60)
    day.trade(COIN, -20, 600, 0.0006)
    day.write(60, closing=True)
    day.ledger.close()
    found = day.of()
    assert found.reconciled and not found.notes, found
    assert line(found, COIN).fills == 1 and line(found, COIN).realised == Decimal("0.02") and not line(found, COIN).held


def test_a_fill_heard_of_tomorrow_is_in_todays_books(day):
    day.now_ns = MIDNIGHT + DAY - 120 * S
    late = day.trade(COIN, 20, 500, 0.0006, heard=False)
    day.now_ns = MIDNIGHT + DAY - 10 * S
    day.write()
    assert not day.of().reconciled
    day.now_ns = MIDNIGHT + DAY + 60 * S
    day.hear_late(late)
    day.write(60, closing=True)
    assert day.of().reconciled and day.of(TOMORROW).reconciled
    assert pool(day.of(), "BTC").premiums == Decimal("-0.1") and not line(day.of(TOMORROW), COIN).fills


def test_a_delivery_counts_at_the_venues_time_however_late_it_is_heard_of(day):
    day.trade(COIN, 20, 500, 0.0)
    day.write()
    day.now_ns = EXPIRY
    told = day.expire(COIN, 0.1, heard=False)
    day.now_ns = MIDNIGHT + 2 * DAY - 30 * S
    day.write()
    day.now_ns = MIDNIGHT + 2 * DAY + 3_600 * S
    day.batch.settlements.append((told, VENUE_RECORD))
    day.write(closing=True)
    second, third = day.of(TOMORROW), day.of(THIRD)
    assert second.reconciled and line(second, COIN).settled == pytest.approx(Decimal("0.1997"))
    assert third.reconciled and not third.contracts and not second.notes + third.notes


def test_a_position_adopted_as_gone_is_no_change_by_hand_once_its_delivery_is_recorded(day):
    day.trade(COIN, 20, 500, 0.0)
    day.write()
    day.now_ns = EXPIRY
    told = day.expire(COIN, 0.1, heard=False)
    day.now_ns += S
    day.adopt()
    day.write()
    assert "no record of its delivery" in day.of(TOMORROW).notes[0] and not day.of(TOMORROW).reconciled
    day.batch.settlements.append((told, VENUE_RECORD))
    day.write(closing=True)
    assert day.of(TOMORROW).reconciled and not day.of(TOMORROW).notes


def test_a_delivery_known_by_a_position_report_alone_leaves_its_cash_unexplained_and_says_so(day):
    day.trade(COIN, 20, 500, 0.0)
    day.write()
    day.expire(COIN, 0.1, proof=POSITION_REPORT)
    day.write(closing=True)
    found = day.of()
    assert pool(found, "BTC").unexplained == pytest.approx(Decimal("0.1997")) and not found.reconciled
    assert any("known by position report" in note for note in found.notes)


def test_cash_figures_of_the_seconds_after_a_delivery_are_no_cut(day):
    day.trade(COIN, 20, 500, 0.0)
    day.write(100)
    before_ns = day.now_ns
    day.now_ns += 70 * S
    day.expire(COIN, 0.1)
    day.write(0.5)
    assert day.of().to_ns == before_ns
    day.write(60)
    assert day.of().to_ns == day.now_ns and day.of().reconciled


OPTIONS_AND_FUTURES = st.lists(
    st.one_of(
        st.tuples(
            st.just("trade"), st.integers(0, 4), st.integers(-40, 40).filter(bool), st.integers(60, 140),
            st.floats(-0.001, 0.01),
        ),
        st.tuples(st.just("late"), st.integers(2, 4), st.integers(-9, 9).filter(bool), st.integers(60, 140)),
        st.tuples(st.just("expire"), st.integers(2, 4), st.floats(0.5, 2.0)),
        st.tuples(st.just("write"), st.floats(0.1, 90.0)),
        st.tuples(st.just("adopt")),
        st.tuples(st.just("day")),
    ),
    max_size=25,
)  # fmt: skip
TICKS = (1_200, 600, 5, 2, 1_200)  # a hundredth of each contract's price


@settings(max_examples=60, deadline=None)
@given(OPTIONS_AND_FUTURES)
def test_whatever_is_traded_and_delivered_cash_is_conserved(tmp_path_factory, doings):
    """The explained cash is the sum of what the venue moved, on every day, and nothing is noted as odd."""
    day = Day(tmp_path_factory.mktemp("day") / "ledger.sqlite")
    day.adopt()
    day.write()
    began, over, late, turned = dict(day.venue.by_name["main"].cash), set(), [], False
    for what, *how in doings:
        row = how[0] if what in ("trade", "late", "expire") else -1
        if row in over:
            continue
        if what == "trade":
            day.trade(row, how[1], how[2] * TICKS[row], how[3])
        elif what == "late":
            late.append(day.trade(row, how[1], how[2] * TICKS[row], 0.001, heard=False))
        elif what == "expire":
            day.expire(row, how[1] * 100 * TICKS[row] * float(UNIVERSE.instruments[row].tick_size))
            over.add(row)
            continue
        elif what == "write":
            day.write(how[0])
        elif not late and what == "adopt":  # a restart: every fill was asked for first
            day.adopt()
            day.write()
        elif not late and what == "day" and not turned:
            day.now_ns = max(day.now_ns, MIDNIGHT + DAY - 10 * S)
            day.write(5)
            day.now_ns, turned = MIDNIGHT + DAY + 5 * S, True
    for fill in late:
        day.hear_late(fill)
    day.write(60, closing=True)
    day.ledger.close()
    told = [day.of(), *([day.of(TOMORROW)] if turned else [])]
    assert not any(one.notes for one in told), told
    for currency, cash in day.venue.by_name["main"].cash.items():
        moved = sum(
            (p.realised + p.premiums + p.settled - p.fees for one in told for p in [pool(one, currency)]), Decimal(0)
        )
        assert float(moved) == pytest.approx(cash - began[currency], abs=1e-9 if currency == "BTC" else 1e-6)
        assert all(pool(one, currency).reconciled for one in told), told


def test_a_transfer_by_hand_is_unexplained_and_not_hidden(day):
    day.trade(1, 1_000, 60_000, 1.5)
    day.venue.by_name["main"].add_cash("USDC", -250.0)
    day.write(closing=True)
    found = day.of()
    assert not found.reconciled
    assert pool(found, "USDC").unexplained == -250 and pool(found, "BTC").unexplained == 0


def test_a_trade_by_hand_while_the_daemon_was_down_is_told(day):
    day.trade(0, 100, 120_000, 0.0)
    day.write()
    day.venue.trade("main", day.contracts[INVERSE.name], 50, 60_000.0, 0.0)
    day.adopt()
    day.write(closing=True)
    (note,) = day.of().notes
    assert "BTC-PERPETUAL changed by +500 without a fill" in note


def test_a_fill_whose_cash_has_not_been_told_yet_is_in_the_next_books(day):
    day.write(100)
    closed_ns = day.now_ns
    day.trade(1, 1_000, 60_000, 1.5)
    day.write(0.5)  # too soon after the fill to be trusted
    assert day.of().to_ns == closed_ns
    day.write(60)
    assert day.of().to_ns == day.now_ns and pool(day.of(), "USDC").fees == Decimal("1.5")


def test_a_day_without_the_daemon_has_no_books(day):
    found = day.of(date(2026, 1, 1))
    assert found.contracts == found.pools == [] and not found.reconciled
    assert "no cash figures" in found.notes[0]


def test_a_ledger_of_an_earlier_release_says_what_it_lacks(tmp_path):
    import sqlite3

    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path, isolation_level=None) as db:
        migrate(db, MIGRATIONS[:1])
    db.close()
    found = statement(path, TODAY)
    assert "begin with the next run" in found.notes[0] and not found.reconciled


def test_a_ledger_of_the_release_before_is_read_as_it_is(day, tmp_path):
    import sqlite3

    day.trade(1, 10_000, 60_000, 1.0)
    day.write(closing=True)
    day.ledger.close()
    with sqlite3.connect(day.ledger.path) as db:  # what that release lacked
        db.executescript("DROP TABLE settlements; DROP TABLE marks; PRAGMA user_version = 2;")
    db.close()
    assert day.of().reconciled and pool(day.of(), "USDC").fees == 1


# --- the command --------------------------------------------------------------------------------------------


def run(day, *arguments):
    return CliRunner().invoke(cli, ["statement", "--ledger", str(day.ledger.path), *arguments])


def test_the_command_tells_it_as_text_json_and_csv(day):
    day.trade(1, 1_000, 60_000, 1.5)
    day.trade(1, -1_000, 62_000, 1.5)
    day.write(closing=True)
    text = run(day, "--day", "2026-02-16").output
    assert "ETH_USDC-PERPETUAL" in text and "reconciled: " in text.splitlines()[-1]
    assert any(line.split() == ["+", "realised", "0.00000000", "100.00"] for line in text.splitlines())
    told = json.loads(run(day, "--day", "2026-02-16", "--json").output)
    assert told["reconciled"] and told["contracts"][0]["realised"] == "100"
    rows = list(csv.DictReader(io.StringIO(run(day, "--day", "2026-02-16", "--csv").output)))
    figures = {(row["subject"], row["figure"]): (row["value"], row["unit"]) for row in rows}
    assert figures["USDC", "realised"] == ("100", "USDC") and figures["ETH_USDC-PERPETUAL", "fills"] == ("2", "")


def test_the_command_tells_options_by_underlying_and_contract(day):
    day.trade(COIN, 20, 500, 0.0006)
    day.trade(USDC, -100, 160, 1.5)
    day.write()
    day.expire(USDC, 116.0)  # and 9 USDC of fees
    day.write(closing=True)
    text = [tuple(one.split()) for one in run(day, "--day", "2026-02-16").output.splitlines()]
    assert ("BTC", "-0.10000000", "0.00000000", "0.00060000", "0.10000000", "BTC") in text
    assert ("BTC_USDC-17FEB26-65000-P", "800.00", "-125.00", "1.50", "0.00", "USDC") in text
    assert ("+", "settled", "at", "expiry", "0.00000000", "-125.00") in text
    told = json.loads(run(day, "--day", "2026-02-16", "--json").output)
    assert told["reconciled"] and told["options"][1] == {
        "account": "deribit/main", "underlying": "BTC", "currency": "USDC", "premiums": "800", "settled": "-125",
        "fees": "1.5", "value_end": "0",
    }  # fmt: skip
    assert {one["contract"]: one["settled"] for one in told["contracts"]}[IN_DOLLARS.name] == "-125"
    rows = list(csv.DictReader(io.StringIO(run(day, "--day", "2026-02-16", "--csv").output)))
    figures = {(row["subject"], row["figure"]): (row["value"], row["unit"]) for row in rows}
    assert figures[OPTION.name, "premiums"] == ("-0.1", "BTC") and figures["USDC", "settled"] == ("-125", "USDC")


def test_the_command_says_which_days_there_are(day):
    done = run(day, "--day", "2020-01-01")
    assert done.exit_code == 66 and "it has 2026-02-16 to 2026-02-16" in done.output
    wrong = run(day, "--day", "yesterday")
    assert wrong.exit_code == 64 and "not a day such as" in wrong.output
