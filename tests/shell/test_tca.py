"""What trading cost, told from a ledger: sums, errors, what is not known, and ledgers that are old or in use."""

import json
import math
import sqlite3

import pytest
from click.testing import CliRunner
from msgspec import structs

from dea_daemon.cli import cli
from dea_daemon.domain.errors import InvariantViolation, LedgerError
from dea_daemon.domain.orders import OrderState
from dea_daemon.execution.shortfall import Shortfall
from dea_daemon.shell import console
from dea_daemon.shell.ledger import Batch, Ledger
from dea_daemon.shell.ledger_schema import MIGRATIONS, migrate
from dea_daemon.shell.tca import costs
from dea_daemon.shell.tca_text import as_json, lines
from tests.shell.ledger_samples import NOW, UNIVERSE, S, order

NAN = float("nan")
_FIELDS = dict(
    account="deribit/main", instrument="BTC-PERPETUAL", underlying="BTC", side="buy", placed="cross",
    decided_ns=NOW - 2 * S, sent_ns=NOW - S, ended_ns=NOW, lots=10, filled_lots=10, asked_usd=100.0, filled_usd=100.0,
    rest_usd=0.0, decision_mid=1.0, arrival_mid=1.0, price=1.0, end_mid=1.0, delay_usd=0.01, impact_usd=0.0,
    spread_usd=0.02, fee_usd=0.05, opportunity_usd=0.0, waited_usd=0.0, total_usd=0.08, markout_1s_usd=0.01,
    markout_10s_usd=0.0, markout_60s_usd=-0.02,
)  # fmt: skip


def found(number, **changes):
    """As the note `order.measured` tells it, with more fields than the ledger keeps."""
    told = Shortfall(**{"client_order_id": order(number).client_order_id, **_FIELDS, **changes})
    bp = {f"{part}_bp": told.bp(getattr(told, f"{part}_usd")) for part in ("delay", "impact", "spread", "fee", "total")}
    return structs.asdict(told) | bp | {"beyond_usd": 1.0, "day_vol_bp": 300.0}


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def put(ledger, *measured):
    ledger.write(Batch(measured=list(measured)), UNIVERSE, NOW)


def call(*arguments):
    return CliRunner().invoke(cli, ["tca", *map(str, arguments)])


def test_a_line_is_the_sum_of_its_orders_over_what_they_filled(ledger):
    put(
        ledger,
        found(1),
        found(2, filled_usd=300.0, asked_usd=500.0, spread_usd=0.10, total_usd=0.16),
        found(3, placed="post", filled_usd=0.0, asked_usd=200.0, rest_usd=200.0, delay_usd=0.0, spread_usd=0.0,
              fee_usd=0.0, opportunity_usd=0.4, total_usd=0.4),
    )  # fmt: skip
    told = costs(ledger.path)
    crossed, rested = told.lines
    assert (crossed.orders, rested.orders, told.whole.orders) == (2, 1, 3)
    assert crossed.bp("spread") == pytest.approx(0.12 / 400 * 1e4) and crossed.total_bp == pytest.approx(6.0)
    assert sum(crossed.parts_usd.values()) == pytest.approx(crossed.total_usd)
    assert crossed.filled_share == pytest.approx(2 / 3) and rested.filled_share == 0.0
    assert rested.total_bp is None  # of nothing filled
    assert told.whole.total_bp == pytest.approx(0.64 / 400 * 1e4)  # but what was missed is in the sum
    assert crossed.markout_bp("60s") == pytest.approx(-0.04 / 400 * 1e4)


def test_the_error_is_that_of_a_ratio_of_sums(ledger):
    costs_usd = [0.01, 0.05, -0.02, 0.08]
    put(ledger, *(found(n, total_usd=usd) for n, usd in enumerate(costs_usd, start=1)))
    (line,) = costs(ledger.path).lines
    mean = sum(costs_usd) / 4
    deviation = math.sqrt(sum((c - mean) ** 2 for c in costs_usd) / 3)
    assert line.error_bp == pytest.approx(deviation / math.sqrt(4) / 100 * 1e4)  # equal sizes: the textbook's own
    put(ledger, found(9, instrument="BTC-25DEC26"))
    assert costs(ledger.path).lines[0].error_bp is None  # of one order nobody can tell


def test_what_is_not_known_is_counted_and_in_no_sum(ledger):
    put(ledger, found(1), found(2, delay_usd=NAN, total_usd=NAN, markout_60s_usd=NAN, placed="cross"))
    told = costs(ledger.path)
    assert told.whole.unknown == 1 and told.whole.total_bp == pytest.approx(8.0)
    assert told.whole.markout_bp("1s") == pytest.approx(1.0) and told.whole.markout_bp("60s") == pytest.approx(-2.0)
    assert any("1 orders are in no sum" in line for line in lines(told))


def test_orders_that_were_not_measured_are_counted_but_not_those_that_never_lived(ledger):
    ledger.write(Batch(intents=[order(n) for n in (1, 2, 3)]), UNIVERSE, NOW)
    ledger.write(Batch(orders={order(3).client_order_id: order(3, state=OrderState.REJECTED)}), UNIVERSE, NOW)
    put(ledger, found(1))
    told = costs(ledger.path)
    assert told.unmeasured == 1 and any("1 orders not measured" in line for line in lines(told))


def test_only_the_time_asked_for_is_told(ledger):
    put(ledger, found(1), found(2, ended_ns=NOW + 10 * S))
    assert costs(ledger.path, NOW + S).whole.orders == 1
    assert (costs(ledger.path).from_ns, costs(ledger.path).to_ns) == (NOW, NOW + 10 * S)


def test_it_is_told_beside_a_running_daemon_and_after_its_death(ledger, tmp_path):
    put(ledger, found(1))
    assert "BTC-PERPETUAL" in call("--ledger", ledger.path).stdout  # which another process holds
    for suffix in ("", "-wal", "-shm"):  # the files as a kill leaves them
        source = ledger.path.with_name(ledger.path.name + suffix)
        (tmp_path / f"dead.sqlite{suffix}").write_bytes(source.read_bytes())
    result = call("--ledger", tmp_path / "dead.sqlite", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["event"] == "tca" and told["all"]["orders"] == 1


def test_the_table_names_what_crossed_and_what_rested_and_json_says_null_for_unknown(ledger):
    put(ledger, found(1), found(2, placed="post", total_usd=NAN, delay_usd=NAN))
    told = costs(ledger.path)
    text = "\n".join(lines(told))
    assert "crossed" in text and "rested" in text and " 8.00 " in text and "?" in text
    rested = as_json(told)["lines"][1]
    assert rested["total_bp"] is None and rested["filled_usd"] == 100.0
    json.dumps(as_json(told), allow_nan=False)


def test_a_ledger_without_orders_or_of_an_earlier_release_says_so(ledger, tmp_path):
    assert any("no order was measured yet" in line for line in lines(costs(ledger.path)))
    old = tmp_path / "old.sqlite"
    db = sqlite3.connect(old)
    db.isolation_level = None
    migrate(db, MIGRATIONS[:3])
    db.close()
    assert "earlier release" in call("--ledger", old).stdout
    assert call("--ledger", tmp_path / "none.sqlite").exit_code == 66
    (tmp_path / "no.sqlite").write_text("not a database, whatever its name says" * 50)
    with pytest.raises(LedgerError):
        costs(tmp_path / "no.sqlite")


def test_costs_written_twice_count_once_and_a_refused_write_drops_them(ledger):
    put(ledger, found(1))
    put(ledger, found(1))
    assert costs(ledger.path).whole.orders == 1
    batch = Batch(measured=[found(2) | {"lots": "many"}])
    with pytest.raises(InvariantViolation):
        ledger.write(batch, UNIVERSE, NOW)
    assert costs(ledger.path).whole.orders == 1


def test_on_a_terminal_an_order_measured_is_one_short_line():
    start = {"timestamp": "2026-11-21T16:55:11.304", "level": "info", "event": "order.measured"}
    text = console.text(start | found(1), colour=False)
    assert "100 of 100 USD, cost 8.00 bp" in text and "spread 2.00 fee 5.00" in text and len(text) < 180
    unfilled = found(2, filled_lots=0, filled_usd=0.0)
    assert "0 of 100 USD, cost ? bp" in console.text(start | unfilled, colour=False)
