"""The dialect as one object: requests in, replies out, notifications into the sessions' outboxes.

Time is an argument of every call, never goes back, and drives the venue behind it.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.instruments import Instrument, Kind
from dea_daemon.domain.numbers import NS_PER_S
from dea_daemon.simvenue.deribit import market as public
from dea_daemon.simvenue.deribit import settlements, witness
from dea_daemon.simvenue.deribit import trading as private
from dea_daemon.simvenue.deribit.call import Call, Market, Method
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.errors import ApiError, invalid
from dea_daemon.simvenue.deribit.hub import Hub
from dea_daemon.simvenue.deribit.keys import Grant, Key, Keyring
from dea_daemon.simvenue.deribit.limits import Limits, Pools
from dea_daemon.simvenue.deribit.params import Params
from dea_daemon.simvenue.deribit.session import Json, Session, encode
from dea_daemon.simvenue.exchange import Exchange
from dea_daemon.simvenue.faults import FaultPlan
from dea_daemon.simvenue.incidents import Incident
from dea_daemon.simvenue.words import InstrumentChanged, Refused, Traded, VenueEvent

HEARTBEAT_S_MIN = 10


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON-RPC reply and the HTTP status that goes with it."""

    body: dict[str, Any]
    status: int

    def encoded(self) -> bytes:
        return encode(self.body)


class Deribit:
    """The venue as Deribit's clients see it."""

    def __init__(
        self,
        exchange: Exchange,
        keys: Iterable[Key],
        *,
        limits: Limits | None = None,
        faults: FaultPlan | None = None,
    ) -> None:
        self.exchange = exchange
        self.sessions: dict[Session, None] = {}
        limits = limits or Limits()
        self._market = Market(exchange, limits, {}, [])
        self._keys = Keyring({key.client_id: key for key in keys})
        self._pools = Pools(limits)
        plan = faults or FaultPlan()
        self._hub = Hub(self._market, plan)
        self._opened_ns, self._incidents = exchange.now_ns, list(plan.incidents)
        for incident in self._incidents:
            self._check_known(incident)
        self._opened = 0
        self._methods = public.METHODS | private.METHODS | settlements.METHODS | self._session_methods()
        for listed in exchange.instruments.values():
            self._list(listed)

    # --- connections ------------------------------------------------------------------------------

    def open(self, *, websocket: bool) -> Session:
        """A new connection, or one HTTP request."""
        self._opened += 1
        session = Session(self._opened, websocket)
        if websocket:
            self.sessions[session] = None
        return session

    def close(self, session: Session, now_ns: int) -> None:
        """The connection is gone: cancel what it created, where it asked for that."""
        if self.sessions.pop(session, session) is not None:
            return
        self._hub.unsubscribe(session)
        if session.cancel_on_disconnect:
            self.advance(now_ns)
            for order_id in session.orders:
                self._cancel_if_open(session.account, order_id)
            self.advance(now_ns)

    def _cancel_if_open(self, account: str, order_id: str) -> None:
        with suppress(Refused):  # it ended by itself
            self.exchange.cancel(account, order_id)

    def authorise(
        self, session: Session, header: str, http_method: str, raw_path: str, body: str, now_ns: int
    ) -> Reply | None:
        """Read an HTTP Authorization header; the refusal, or None."""
        try:
            session.grant = self._keys.of_header(header, http_method, raw_path, body, now_ns)
        except ApiError as error:
            return self._reply({}, error, now_ns)
        return None

    # --- time -------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Let the venue run up to now; tell the witness and whoever subscribed; beat the hearts."""
        self.exchange.advance(now_ns)
        self._befall(now_ns)
        events = self.exchange.events()
        for event in events:
            self._note(event)
        self._hub.publish(events, now_ns)
        for session in self.sessions:
            if session.heartbeat_ns and now_ns >= session.next_beat_ns:
                self._beat(session, now_ns)

    def _befall(self, now_ns: int) -> None:
        """The incidents that are due."""
        for incident in [i for i in self._incidents if self._opened_ns + i.after_ns <= now_ns]:
            self._incidents.remove(incident)
            self._happen(incident)

    def _check_known(self, incident: Incident) -> None:
        """ConfigError where it concerns what is not here."""
        exchange = self.exchange
        match incident.action:
            case "locked" | "unlocked":
                known = ["venue", *exchange.scenario.coins]
            case "revoked" | "restored":
                known = list(self._keys.keys)
            case "peg":
                known = exchange.stablecoins()
            case _:
                known = [name for name, i in exchange.instruments.items() if i.kind is not Kind.OPTION]
        if incident.whom not in known:
            raise ConfigError(f"fault {incident.action}: no {incident.whom!r} here; there are {', '.join(known)}")

    def _happen(self, incident: Incident) -> None:
        match incident.action:
            case "locked" | "unlocked":
                coin = "" if incident.whom == "venue" else incident.whom
                self.exchange.lock(coin, locked=incident.action == "locked")
            case "revoked":
                self.revoke(incident.whom)
            case "restored":
                self.restore(incident.whom)
            case "peg":
                self.exchange.set_peg(incident.whom, float(incident.number))
            case "tick_size":
                self.exchange.change_tick(incident.whom, incident.number)

    def revoke(self, client_id: str) -> None:
        """Take a key away: its requests are refused, its connections stay open and hear no more of the account."""
        self._keys.revoke(client_id)
        for session in self.sessions:
            if session.grant is not None and session.grant.client_id == client_id:
                self._hub.leave_private(session)

    def restore(self, client_id: str) -> None:
        """Give it back. Connections that lost it must begin anew."""
        self._keys.restore(client_id)

    def _note(self, event: VenueEvent) -> None:
        if isinstance(event, InstrumentChanged):
            self._list(event.instrument)
            self._market.contracts[event.instrument.name].instrument = event.instrument
        elif isinstance(event, Traded):
            contract = self._market.contracts[event.instrument]
            contract.stats.add(contract, event)
        line = witness.line(event, self._market.contracts)
        if line is not None:
            self._market.journal.append(line)

    def _list(self, instrument: Instrument) -> None:
        contracts = self._market.contracts
        if instrument.name not in contracts:
            contracts[instrument.name] = Contract(instrument, 1_000 + len(contracts), self.exchange.now_ns)

    def _beat(self, session: Session, now_ns: int) -> None:
        """A heartbeat and a test_request; whoever did not answer the last one is cut off."""
        if session.test_pending:
            session.closing = "test_request was not answered"
            return
        session.next_beat_ns = now_ns + session.heartbeat_ns
        session.test_pending = True
        for kind in ("heartbeat", "test_request"):
            session.post(encode({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}}))

    def take_journal(self) -> list[Json]:
        """The witness's lines since the last call."""
        journal = list(self._market.journal)
        self._market.journal.clear()
        return journal

    # --- requests ---------------------------------------------------------------------------------

    def handle(self, session: Session, request: Json, now_ns: int) -> Reply:
        """One JSON-RPC request, already parsed."""
        self.advance(now_ns)
        outcome: Json
        try:
            outcome = self._run(session, request, now_ns)
        except ApiError as error:
            outcome = error
        self.advance(now_ns)
        return self._reply(request, outcome, now_ns)

    def refuse(self, request: Json, code: int, now_ns: int) -> Reply:
        """The reply to a request that is not run."""
        return self._reply(request, ApiError(code), now_ns)

    def _run(self, session: Session, request: Json, now_ns: int) -> Json:
        name, raw = _parsed(request)
        method = self._methods.get(name)
        if method is None:
            raise ApiError(-32601)
        params = Params(raw)
        if params.has("access_token"):
            session.grant = self._keys.of_token(params.text("access_token"), session.number, now_ns)
        self._pay(session, method, now_ns)
        if method.websocket_only and not session.websocket:
            raise ApiError(10030)
        if method.scope:
            self._check_scope(session.grant, method.scope, now_ns)
        if method.matching and self.exchange.maintenance:
            raise ApiError(11051)
        return method.run(Call(self._market, session, params, session.account, now_ns))

    def _pay(self, session: Session, method: Method, now_ns: int) -> None:
        pool = self._pools.pool(session.account, method.matching, now_ns)
        if not pool.take(now_ns):
            if pool.abused:
                session.closing = "too_many_requests"
            raise ApiError(10028)

    def _check_scope(self, grant: Grant | None, scope: str, now_ns: int) -> None:
        if grant is None or grant.expires_ns <= now_ns or self._keys.revoked(grant):
            raise ApiError(13009, reason="invalid_token")
        if not grant.allows(scope):
            raise ApiError(13021)

    def _reply(self, request: Json, outcome: Json, now_ns: int) -> Reply:
        body: dict[str, Any] = {"jsonrpc": "2.0"}
        if isinstance(request, Mapping) and "id" in request:
            body["id"] = request["id"]
        status = 200
        if isinstance(outcome, ApiError):
            body["error"], status = outcome.body(), outcome.status
        else:
            body["result"] = outcome
        now_us = now_ns // 1_000
        return Reply(body | {"usIn": now_us, "usOut": now_us, "usDiff": 0, "testnet": True}, status)

    # --- methods of the connection itself ------------------------------------------------------------

    def _session_methods(self) -> dict[str, Method]:
        def on(run: Any, scope: str = "") -> Method:
            return Method(run, scope, websocket_only=True)

        account = "account:read_write"
        return {
            "public/auth": Method(self._auth),
            "public/hello": on(public.test),
            "public/test": Method(self._test),
            "public/set_heartbeat": on(self._set_heartbeat),
            "public/disable_heartbeat": on(self._disable_heartbeat),
            "public/subscribe": on(lambda call: self._subscribe(call, private=bool(call.account))),
            "public/unsubscribe": on(self._unsubscribe),
            "public/unsubscribe_all": on(self._unsubscribe_all),
            "private/subscribe": on(lambda call: self._subscribe(call, private=True), "account:read"),
            "private/unsubscribe": on(self._unsubscribe, "account:read"),
            "private/unsubscribe_all": on(self._unsubscribe_all, "account:read"),
            "private/enable_cancel_on_disconnect": on(lambda call: self._guard(call, True), account),
            "private/disable_cancel_on_disconnect": on(lambda call: self._guard(call, False), account),
            "private/get_cancel_on_disconnect": on(
                lambda call: {"enabled": call.session.cancel_on_disconnect, "scope": "connection"}, "account:read"
            ),
            "private/logout": on(self._logout, "account:read"),
        }

    def _auth(self, call: Call) -> Json:
        """A websocket's tokens are bound to it."""
        number = call.session.number if call.session.websocket else 0
        call.session.grant, reply = self._keys.authenticate(call.params, number, call.now_ns)
        return reply

    @staticmethod
    def _test(call: Call) -> Json:
        call.session.test_pending = False
        return public.test(call)

    @staticmethod
    def _set_heartbeat(call: Call) -> Json:
        interval_s = call.params.integer("interval")
        if interval_s < HEARTBEAT_S_MIN:
            raise invalid("interval", f"min value is {HEARTBEAT_S_MIN}")
        call.session.heartbeat_ns = interval_s * NS_PER_S
        call.session.next_beat_ns = call.now_ns + call.session.heartbeat_ns
        call.session.test_pending = False
        return "ok"

    @staticmethod
    def _disable_heartbeat(call: Call) -> Json:
        call.session.heartbeat_ns = 0
        return "ok"

    def _subscribe(self, call: Call, *, private: bool) -> Json:
        return self._hub.subscribe(call.session, call.params.names("channels"), private=private)

    def _unsubscribe(self, call: Call) -> Json:
        return self._hub.unsubscribe(call.session, call.params.names("channels"))

    def _unsubscribe_all(self, call: Call) -> Json:
        self._hub.unsubscribe(call.session)
        return "ok"

    @staticmethod
    def _guard(call: Call, enabled: bool) -> Json:
        if call.params.text("scope", "connection", one_of=("connection", "account")) == "account":
            raise ApiError(10033)
        call.session.cancel_on_disconnect = enabled
        return "ok"

    @staticmethod
    def _logout(call: Call) -> Json:
        """Leave in good order: nothing is cancelled."""
        call.session.cancel_on_disconnect = False
        call.session.closing = "logout"
        return None


def _parsed(request: Json) -> tuple[str, Mapping[str, Any]]:
    """The method and params of a well-formed request."""
    if not isinstance(request, Mapping) or not isinstance(request.get("method"), str):
        raise ApiError(11050)
    params = request.get("params")
    if params is None:
        params = {}
    if not isinstance(params, Mapping):
        raise ApiError(11050)
    return request["method"], params
