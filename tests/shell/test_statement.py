"""A day's statement against an independent bookkeeper: the simulated venue's accounts."""

import csv
import io
import json
import random
from datetime import date
from decimal import Decimal

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from dea_daemon.cli import cli
from dea_daemon.domain.events import AccountReported, PoolReport, PositionReport
from dea_daemon.domain.instruments import Kind, Payoff, Side, Universe
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_schema import MIGRATIONS, migrate
from dea_daemon.shell.statement import days, statement
from dea_daemon.simvenue.accounts import Accounts, Contract
from tests.shell.ledger_samples import MAIN, S, booked, instrument

DAY = 86_400 * S
MIDNIGHT = 20_500 * DAY
TODAY, TOMORROW = date(2026, 2, 16), date(2026, 2, 17)
MINUTE = 60 * S

INVERSE = instrument("BTC-PERPETUAL")
LINEAR = replace(
    instrument("ETH_USDC-PERPETUAL", lot_size="0.001", tick_size="0.05"),
    payoff=Payoff.LINEAR, quote_currency="USDC", settle_currency="USDC", margin_pool="USDC",
)  # fmt: skip
OPTION = replace(instrument("BTC-27MAR26-70000-C", "0.1", "0.0001"), kind=Kind.OPTION, payoff=Payoff.LINEAR)
UNIVERSE = Universe((MAIN,), ((0, INVERSE), (0, LINEAR), (0, OPTION)))


class Day:
    """A venue and the ledger of a daemon that trades there. `now_ns` is moved by hand."""

    def __init__(self, path):
        self.ledger = Ledger.open(path)
        self.contracts = {i.name: Contract(i) for i in (INVERSE, LINEAR, OPTION)}
        for contract, price in zip(self.contracts.values(), (60_000.0, 3_000.0, 0.05), strict=True):
            contract.mark = contract.index = price
        self.venue = Accounts(self.contracts)
        self.venue.open("main", {"BTC": 5.0, "USDC": 100_000.0})
        self.now_ns = MIDNIGHT + 3_600 * S
        self.batch = Batch()
        self.trades = 0

    def trade(self, row, lots, ticks, fee):
        """A fill of signed lots, at the venue and in the ledger."""
        self.now_ns += S // 100
        one = UNIVERSE.instruments[row]
        price = float(one.ticks_to_price(ticks))
        self.venue.trade("main", self.contracts[one.name], lots, price, fee)
        self.trades += 1
        self.batch.fills.append(
            booked(
                f"t{self.trades}", self.now_ns - 5, 100.0, 0.05, ts_recv_ns=self.now_ns, row=row, lots=abs(lots),
                side=Side.BUY if lots > 0 else Side.SELL, price_ticks=ticks, fee=fee, fee_currency=one.settle_currency,
            )
        )  # fmt: skip

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

    def write(self, after_s=5.0, closing=False):
        """Some seconds pass; the daemon writes what it has, with the pools as the venue tells them."""
        self.now_ns += int(after_s * S)
        account = self.venue.by_name["main"]
        for currency, cash in account.cash.items():
            equity, pending = self.venue.equity(account, currency), self.venue.session_funding(account, currency)
            self.batch.pools[0, currency] = PoolReport(currency, equity, cash, 0.0, 0.0, pending)
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


def test_an_option_is_paid_for_when_bought(day):
    day.trade(2, 20, 500, 0.0006)  # 2 BTC of options at 0.05
    day.venue.by_name["main"].add_cash("BTC", -0.1)  # the venue books the premium
    day.write(closing=True)
    found = pool(day.of(), "BTC")
    assert found.premiums == Decimal("-0.1") and found.realised == 0
    assert found.reconciled


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


def test_the_command_says_which_days_there_are(day):
    done = run(day, "--day", "2020-01-01")
    assert done.exit_code == 66 and "it has 2026-02-16 to 2026-02-16" in done.output
    wrong = run(day, "--day", "yesterday")
    assert wrong.exit_code == 64 and "not a day such as" in wrong.output
