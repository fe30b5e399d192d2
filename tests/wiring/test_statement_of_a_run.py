"""Two real runs on one simulated venue, the second with other targets: the statement explains the venue's cash."""

import base64
import json
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from tests.wiring.processes import CLI, Daemon, Venue, config, wait_for


def is_fill_in_btc(event):
    return event["event"] == "order.filled" and event["instrument"] == "BTC-PERPETUAL"


def trade_to(folder, venue, state, delta_usd):
    """A run that has begun to move towards this target; its last word."""
    path = config(folder, delta_usd=str(delta_usd), band_usd="2_000", instruments="[BTC-PERPETUAL, ETH_USDC-PERPETUAL]")
    daemon = Daemon(path, venue, state)
    try:
        wait_for(lambda: any(is_fill_in_btc(event) for event in daemon.events()), 40, "a fill")
    finally:
        code = daemon.stop()
    assert code == 0
    return daemon.finished()


def statement_of(state):
    arguments = ["statement", "--ledger", str(state), "--json"]
    return json.loads(subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=True).stdout)


def test_profit_and_cash_of_two_runs_reconcile_to_the_cent(tmp_path):
    venue, state = Venue(tmp_path), tmp_path / "state"
    try:
        fills = [trade_to(tmp_path, venue, state, delta)["fills"] for delta in (250_000, 330_000)]
    finally:
        venue.close()
    told = statement_of(state)
    assert told["reconciled"], told
    assert sum(line["fills"] for line in told["contracts"]) == sum(fills)
    assert any(float(line["realised"]) != 0 for line in told["contracts"]), told["contracts"]
    assert told["notes"] == []


# --- options, held from before and traded while it runs, to their expiry --------------------------------------


def ask(venue, method, **params):
    """One call of the venue's HTTP, by hand, on the daemon's own account."""
    url = f"{venue.listening['http_url']}/api/v2/{method}?{urllib.parse.urlencode(params)}"
    key = f"{venue.listening['client_id']}:{venue.listening['client_secret']}"
    basic = {"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}
    asked = urllib.request.Request(url, headers=basic)  # noqa: S310 - the venue's own, never a file
    with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310
        return json.loads(answer.read())["result"]


def nearest(venue, currency):
    """Options that expire next: a call and a put at the money, and a call and a put well in it."""
    listed = ask(venue, "public/get_instruments", currency=currency, kind="option")
    price = ask(venue, "public/get_index_price", index_name="btc_usd")["index_price"]
    first = min(one["expiration_timestamp"] for one in listed)
    chain = [one for one in listed if one["expiration_timestamp"] == first and "BTC" in one["instrument_name"]]

    def closest(kind, strike):
        of_kind = (one for one in chain if one["option_type"] == kind)
        return min(of_kind, key=lambda one: abs(one["strike"] - strike))["instrument_name"]

    wanted = (("call", price), ("put", price), ("call", 0.98 * price), ("put", 1.02 * price))
    return [closest(kind, strike) for kind, strike in wanted]


def settled(daemon):
    return {event["instrument"] for event in daemon.events() if event["event"] == "position.settled"}


@pytest.mark.timeout(120)
def test_options_traded_and_delivered_reconcile_to_the_cent(tmp_path):
    venue, state = Venue(tmp_path, scenario="options"), tmp_path / "state"
    try:
        coin, dollars = nearest(venue, "BTC"), nearest(venue, "USDC")
        for name in (*coin, *dollars):  # before the daemon's time
            ask(venue, "private/buy", instrument_name=name, amount=1, type="market")
        kept = {*coin[2:], *dollars[2:]}  # those at the money the daemon may close itself: they are pinned
        path = config(tmp_path, instruments=f"[BTC-PERPETUAL, ETH_USDC-PERPETUAL, {', '.join(coin + dollars)}]")
        daemon = Daemon(path, venue, state)
        try:
            wait_for(lambda: any(is_fill_in_btc(event) for event in daemon.events()), 40, "a fill")
            ask(venue, "private/sell", instrument_name=coin[2], amount=0.4, type="market")
            ask(venue, "private/sell", instrument_name=dollars[3], amount=1.5, type="market")
            wait_for(lambda: kept <= settled(daemon), 60, "the deliveries")
        finally:
            code = daemon.stop()
        assert code == 0
    finally:
        venue.close()
    told = statement_of(state)
    assert told["reconciled"] and told["notes"] == [], json.dumps(told, indent=1)
    lines = {line["contract"]: line for line in told["contracts"]}
    assert all(lines[name]["held"] == "0" for name in (*coin, *dollars))
    assert lines[coin[2]]["sold"] == "0.4" and float(lines[coin[2]]["premiums"]) > 0
    by_currency = {line["currency"]: line for line in told["options"]}
    assert float(by_currency["BTC"]["settled"]) != 0 and float(by_currency["USDC"]["settled"]) != 0


@pytest.mark.timeout(120)
def test_an_option_that_expires_while_the_daemon_is_down_is_in_its_books(tmp_path):
    venue, state = Venue(tmp_path, scenario="options"), tmp_path / "state"
    try:
        held = nearest(venue, "BTC")[2]
        wanted = "[BTC-PERPETUAL, ETH_USDC-PERPETUAL]"
        path = config(tmp_path, instruments=wanted, options="[BTC-*]", delta_usd="400_000")
        daemon = Daemon(path, venue, state)
        wait_for(lambda: any(event["event"] == "account.reconciled" for event in daemon.events()), 40, "a start")
        ask(venue, "private/buy", instrument_name=held, amount=1, type="market")
        bought = lambda event: event["event"] == "order.filled" and event["instrument"] == held  # noqa: E731
        wait_for(lambda: any(bought(event) for event in daemon.events()), 10, "the fill")
        time.sleep(1.0)
        daemon.kill()
        listed = lambda: {one["instrument_name"] for one in ask(venue, "public/get_instruments", currency="BTC")}  # noqa: E731
        wait_for(lambda: held not in listed(), 40, "the expiry")
        again = Daemon(path, venue, state)
        try:
            wait_for(lambda: held in settled(again), 30, "the delivery's record")
            time.sleep(2.0)
        finally:
            code = again.stop()
        assert code == 0
        (event,) = [event for event in again.events() if event["event"] == "position.settled"]
        assert event["proof"] == "venue record" and event["venue_lots"] == 10
        assert not [event for event in again.events() if event["event"] in ("mode.changed", "account.outside_found")]
    finally:
        venue.close()
    told = statement_of(state)
    assert told["reconciled"] and told["notes"] == [], json.dumps(told, indent=1)
