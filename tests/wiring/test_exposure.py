"""A portfolio from a file: what it is exposed to, and what is said where it cannot be understood."""

from pathlib import Path
from typing import Any

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.portfolio import is_portfolio
from dea_daemon.wiring.exposure import portfolio_exposure

SAMPLE = Path(__file__).parents[2] / "config" / "portfolio.yaml"
HEAD = """\
portfolio:
  as_of: 2026-01-05T08:00:00Z
  prices: {BTC: 80_000, ETH: 3_000}
  cash: {BTC: 2, USDC: 10_000}
  positions:
"""


def write(folder: Path, *positions: str, head: str = HEAD) -> Path:
    path = folder / "p.yaml"
    path.write_text(head + "".join(f"    - {{{position}}}\n" for position in positions))
    path.chmod(0o600)
    return path


@pytest.fixture
def told(tmp_path):
    return lambda *positions, **more: portfolio_exposure(write(tmp_path, *positions, **more))


def factor(found: dict[str, Any], name: str, key: str = "exposure_usd") -> float:
    return float(next(line[key] for line in found["factors"] if line["factor"] == name))


# --- sums ---------------------------------------------------------------------------------------------------------


def test_a_short_perpetual_as_large_as_the_coins_leaves_no_delta(told):
    found = told("contract: BTC-PERPETUAL, amount: -160_000")
    assert factor(found, "delta:BTC", "base_usd") == 160_000
    assert factor(found, "delta:BTC") == pytest.approx(0.0, abs=1e-6)
    assert factor(found, "cash:USDC") == 10_000


MIXED = """\
portfolio:
  as_of: 2026-01-05T08:00:00Z
  prices: {{BTC: {spot}}}
  cash: {{BTC: 2, USDC: 10_000}}
  positions:
    - {{contract: BTC-PERPETUAL, amount: -50_000, price: {spot}, entry_price: 79_000}}
    - {{contract: BTC-27MAR26, amount: 30_000, price: {forward}, entry_price: 80_500}}
    - {{contract: BTC_USDC-PERPETUAL, amount: 0.25, price: {spot}, entry_price: 81_000}}
    - {{contract: BTC-27MAR26-90000-C, amount: -3, iv: {iv}}}
    - {{contract: BTC-27MAR26-70000-P, amount: 2, iv: {iv}}}
    - {{contract: BTC_USDC-9JAN26-80000-P, amount: 1.5, iv: {iv}, forward: {spot}}}
"""


def mixed(folder: Path, up: float = 1.0, iv: float = 0.5) -> dict[str, Any]:
    head = MIXED.format(spot=80_000 * up, forward=81_000 * up, iv=iv)
    return portfolio_exposure(write(folder, head=head))


def test_delta_and_gamma_are_what_a_move_does_to_the_equity(tmp_path):
    """The file priced again at other prices: dW/dlnS; and S² d²W/dS², of which coins merely held have none."""
    h = 1e-3
    up, down, now = (mixed(tmp_path, 1 + move)["equity_usd"] for move in (h, -h, 0.0))
    found = mixed(tmp_path)
    assert factor(found, "delta:BTC") == pytest.approx((up - down) / (2 * h), rel=1e-4)
    assert factor(found, "gamma:BTC") == pytest.approx((up - 2 * now + down) / h**2 / 100, rel=1e-3)


def test_vega_is_what_a_vol_point_does_to_the_equity(tmp_path):
    more, less, now = (mixed(tmp_path, iv=iv) for iv in (0.501, 0.499, 0.5))
    moved = (more["equity_usd"] - less["equity_usd"]) / 0.2
    assert sum(now["greeks"]["BTC"]["vega_by_expiry"].values()) == pytest.approx(moved, rel=1e-4)


def test_an_options_price_and_its_volatility_say_the_same(told):
    by_iv = told("contract: BTC-27MAR26-90000-C, amount: 1, iv: 0.5")
    price = by_iv["positions"][0]["mark"]
    by_price = told(f"contract: BTC-27MAR26-90000-C, amount: 1, price: {price!r}")
    assert by_price["positions"][0]["iv"] == pytest.approx(0.5, rel=1e-9)
    assert factor(by_price, "delta:BTC") == pytest.approx(factor(by_iv, "delta:BTC"))
    assert [found["positions"][0]["iv_source"] for found in (by_iv, by_price)] == ["given", "price"]


def test_a_name_and_its_fields_mean_the_same_contract(told):
    named = told("contract: ETH_USDC-27MAR26-3200-P, amount: -5, iv: 0.7")
    spelled = told(
        "kind: option, underlying: ETH, settle: USDC, expiry: 2026-03-27, strike: 3200, type: put, amount: -5, iv: 0.7"
    )
    assert spelled == named
    assert named["positions"][0]["days"] == 81.0


def test_the_future_of_an_expiry_is_its_options_forward_unless_one_is_given(told):
    option = "contract: BTC-27MAR26-90000-C, amount: 1, iv: 0.5"
    future = "contract: BTC-27MAR26, amount: 10_000, price: 82_500"

    def forward(*positions: str) -> float:
        return float(next(row["forward"] for row in told(*positions)["positions"] if row["kind"] == "option"))

    assert forward(option) == 80_000
    assert forward(option, future) == 82_500
    assert forward(option + ", forward: 81_000", future) == 81_000


def test_cash_alone_is_a_portfolio(told):
    found = told(head="portfolio:\n  prices: {BTC: 80_000}\n  cash: {BTC: 1, USDC: 5}\n")
    assert (found["equity_usd"], found["positions"]) == (80_005, [])
    assert factor(found, "cash:BTC") == 80_000


def test_in_the_settlement_average_delta_fades(told):
    head = HEAD.replace("08:00:00Z", "07:45:00Z")
    option = "contract: BTC-5JAN26-60000-C, amount: 1, iv: 0.5"
    before, during = told(option, head=HEAD.replace("08:00:00Z", "07:00:00Z")), told(option, head=head)
    share = during["positions"][0]["delta_usd"] / before["positions"][0]["delta_usd"]
    assert share == pytest.approx(0.5, rel=1e-3)


def test_the_shipped_sample_is_one():
    assert is_portfolio(SAMPLE)
    found = portfolio_exposure(SAMPLE)
    assert found["options"]["listed"] == 5
    assert {row["iv_source"] for row in found["positions"]} == {"", "given", "price"}


@pytest.mark.parametrize("name", ["demo.yaml", "deribit-testnet.yaml", "missing.yaml"])
def test_a_daemons_configuration_is_no_portfolio(name):
    assert not is_portfolio(SAMPLE.with_name(name))


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "pointed", "says"),
    [
        ("contract: BTC_27MAR26, amount: 1", "BTC", "no contract's name: 'BTC_27MAR26' (spot is cash)"),
        ("contract: BTC-31FEB26, amount: 1, price: 1", "BTC-31FEB26", "no date: '31FEB26'"),
        ("contract: SOL-PERPETUAL, amount: 1", "prices", "portfolio.prices: has no price of SOL"),
        ("contract: BTC-2JAN26-90000-C, amount: 1, iv: 0.5", "BTC", "has expired"),
        ("contract: BTC-27MAR26-90000-C, amount: 1", "BTC", "wants one of iv and price"),
        ("contract: BTC-27MAR26-90000-C, amount: 1, iv: 0.5, price: 0.1", "BTC", "wants one of iv and price"),
        ("contract: BTC-27MAR26-90000-C, amount: 1, iv: -1", "-1", "must be above 0"),
        ("contract: BTC-27MAR26-70000-C, amount: 1, price: 0.01", "0.01", "0.01 BTC is not between 0.125 and 1"),
        ("contract: BTC-27MAR26, amount: 1", "BTC", "wants its price"),
        ("contract: BTC-PERPETUAL, amount: 0", "0}", "nothing is held"),
        ("contract: BTC-PERPETUAL, amount: 1, iv: 0.5", "iv", "a perpetual has none"),
        ("contract: BTC-PERPETUAL, amount: 1, strike: 5", "5}", "the contract's name says it already"),
        ("contract: BTC-PERPETUAL, amonut: 1", "amonut", "unknown option (did you mean 'amount'?)"),
        ("kind: option, underlying: BTC, amount: 1, iv: 0.5", "{", "missing: an option has one"),
        ("amount: 1", "{", "missing: name the contract, or give kind and underlying"),
        ("kind: perpetual, underlying: BTC, settle: EUR, amount: 1", "EUR", "not 'EUR'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(told, position, pointed, says):
    """`pointed` is what stands at the line and column told."""
    with pytest.raises(ConfigError) as refused:
        told(position)
    (error,) = [line for line in str(refused.value).split("\n") if says in line]
    path, line, column = error.split(": error: ")[0].split(":")
    assert Path(path).read_text().split("\n")[int(line) - 1][int(column) - 1 :].startswith(pointed)


def test_every_problem_is_told_at_once(told):
    with pytest.raises(ConfigError) as refused:
        told("contract: BTC-27MAR26, amount: 1", "contract: nonsense, amount: 1", "contract: BTC-PERPETUAL, amount: 0")
    assert str(refused.value).count(": error: ") == 3


def test_a_contract_listed_twice_is_refused(told):
    with pytest.raises(ConfigError, match="BTC-PERPETUAL is listed twice"):
        told("contract: BTC-PERPETUAL, amount: 1", "kind: perpetual, underlying: BTC, amount: 2")
