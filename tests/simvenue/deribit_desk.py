"""A client of the pure Deribit dialect with its own clock: no sockets, no waiting."""

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import msgspec

from dea_daemon.simvenue.deribit import Deribit, Key, Limits, Session
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.faults import FaultPlan
from dea_daemon.simvenue.scenarios import load
from tests.simvenue.venues import DEPOSITS, MS, START_NS

BTC, ETH, LINEAR = "BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL"
KEY = Key("sim-7", "a test secret", "main")
READER = Key("reader", "another secret", "main", scope="account:read trade:read wallet:none")
OTHER = Key("other", "a third secret", "other")


def signature(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class Desk:
    """`ask` gives a result or raises Said, with the error; sessions are websockets unless told.

    A venue without options, unless asked for them: it opens faster.
    """

    def __init__(
        self, scenario: str = "default", limits: Limits | None = None, *, options: bool = False, **changes: Any
    ) -> None:
        self.exchange = Exchange(replace(load(scenario), options=options, **changes), 7, START_NS)
        for account in ("main", "other"):
            self.exchange.open_account(account, dict(DEPOSITS))
        self.faults = FaultPlan(7)
        self.venue = Deribit(self.exchange, [KEY, READER, OTHER], limits=limits, faults=self.faults)
        self.now_ns = START_NS
        self.session = self.connect(KEY)

    def connect(self, key: Key | None = None) -> Session:
        session = self.venue.open(websocket=True)
        if key is not None:
            self.authenticate(key, session)
        return session

    def authenticate(self, key: Key, session: Session, **more: Any) -> Any:
        login = {"grant_type": "client_credentials", "client_id": key.client_id, "client_secret": key.client_secret}
        return self.ask("public/auth", session, **login, **more)

    def ask(self, method: str, session: Session | None = None, **params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        body = self.venue.handle(session or self.session, request, self.now_ns).body
        if "error" in body:
            raise Said(body["error"])
        return body["result"]

    def sleep(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * MS
        self.venue.advance(self.now_ns)

    def heard(self, session: Session | None = None) -> list[Any]:
        """The notifications since the last call: (channel, data), or the message where there is no channel."""
        frames = [msgspec.json.decode(frame) for frame in (session or self.session).take()]
        return [(f["params"]["channel"], f["params"]["data"]) if f["method"] == "subscription" else f for f in frames]

    def best(self, instrument: str = BTC) -> tuple[float, float]:
        ticker = self.ask("public/ticker", instrument_name=instrument)
        return ticker["best_bid_price"], ticker["best_ask_price"]

    def rest(self, instrument: str = BTC, amount: float = 10, label: str = "", **more: Any) -> Any:
        """A bid well below the market, and its order."""
        price = self.best(instrument)[0] * 0.98 // 50 * 50
        asked: dict[str, Any] = {"instrument_name": instrument, "amount": amount, "price": price, "label": label} | more
        return self.ask("private/buy", **asked)["order"]

    def take(self, instrument: str = BTC, amount: float = 10, **more: Any) -> Any:
        """Buy at market."""
        return self.ask("private/buy", instrument_name=instrument, amount=amount, type="market", **more)


class Said(Exception):
    """An error reply."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: dict[str, str] = error.get("data", {})
