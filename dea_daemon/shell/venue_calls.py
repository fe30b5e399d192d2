"""Calls to the venue outside the engine: what must be known before it starts, and cancelling without it.

Errors here end the start: ConfigError where the account is not what the configuration says, VenueError where
the venue did not answer.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dea_daemon.domain.errors import ConfigError, OutcomeUnknown, VenueError
from dea_daemon.domain.instruments import Instrument
from dea_daemon.domain.numbers import NS_PER_MS
from dea_daemon.domain.orders import OWN_PREFIX, epoch_of, is_own
from dea_daemon.feeds.deribit_mapping import instrument_from
from dea_daemon.shell.ccxt_client import Client, ask, classify

TRADE_SCOPE, WALLET_SCOPE = "trade:read_write", "wallet:read_write"
CANCELS_AT_ONCE = 4
EPOCH_ORDERS = 1_000  # newest first: the last epoch is among them
ROUNDS_MAX = 5
ROUND_PAUSE_S = 1.0


async def load_instruments(client: Client, wanted: Callable[[str], bool] = lambda name: True) -> list[Instrument]:
    """The venue's contracts whose name is `wanted`, by name; of kinds the house has no word for, none."""
    with _starting("listing contracts"):
        markets: dict[str, Any] = await client.load_markets()
        if not markets:
            raise VenueError("listing contracts: the venue lists none")
        infos = [market["info"] for market in markets.values()]
        listed = [instrument_from(info) for info in infos if wanted(info["instrument_name"])]
    return sorted((i for i in listed if i is not None), key=lambda i: i.name)


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the venue says of the clock, the key and the account.

    clock_skew_ms is the venue's clock minus ours, known to half the round trip. `may_withdraw` is None where
    the venue does not tell. `margin_models` is by currency. `fees` are the account's own rates in words and
    `fee_group` its discount level: Deribit tells them only where they differ from the contracts' own rates.
    """

    clock_skew_ms: float
    round_trip_ms: float
    scopes: frozenset[str]
    may_trade: bool
    may_withdraw: bool | None
    margin_models: dict[str, str]
    fees: tuple[str, ...]
    held: tuple[str, ...] = ()  # currencies with a balance
    fee_group: str = ""


async def check_account(
    client: Client,
    utc_ns: Callable[[], int],
    *,
    margin_model: str | None = None,
    max_skew_ms: float = 1_000.0,
    must_trade: bool = True,
) -> AccountFacts:
    """Ask the venue for the facts; ConfigError where they are not as configured.

    Whether a key that may withdraw is refused is the caller's to decide: this gives the fact.
    """
    with _starting("asking the time"):
        asked_ns = utc_ns()
        venue_ms = await ask(client, "public_get_get_time", {})
        answered_ns = utc_ns()
    with _starting("authenticating"):
        grant = await ask(client, "public_get_auth", _signed_grant(client, answered_ns // NS_PER_MS))
    with _starting("reading the account"):
        account = await ask(client, "private_get_get_account_summaries", {"extended": True})
        told = grant.get("scope")
        scopes = frozenset((told or "").split())
        facts = AccountFacts(
            clock_skew_ms=venue_ms - (asked_ns + answered_ns) / (2 * NS_PER_MS),
            round_trip_ms=(answered_ns - asked_ns) / NS_PER_MS,
            scopes=scopes,
            may_trade=TRADE_SCOPE in scopes,
            may_withdraw=None if told is None else WALLET_SCOPE in scopes,
            margin_models={s["currency"]: s.get("margin_model", "not told") for s in account["summaries"]},
            fees=tuple(_fee(fee) for summary in account["summaries"] for fee in summary.get("fees") or ()),
            held=tuple(s["currency"] for s in account["summaries"] if s.get("equity")),
            fee_group=", ".join(
                sorted({s["fee_group"] for s in (account, *account["summaries"]) if s.get("fee_group")})
            ),
        )
    _compare(facts, margin_model, max_skew_ms, must_trade)
    return facts


def _signed_grant(client: Client, utc_ms: int) -> dict[str, Any]:
    """public/auth by signature: with client_credentials the secret itself would stand in the URL."""
    nonce = secrets.token_hex(8)
    signed = f"{utc_ms}\n{nonce}\n".encode()
    return {
        "grant_type": "client_signature",
        "client_id": client.apiKey,
        "timestamp": utc_ms,
        "nonce": nonce,
        "data": "",
        "signature": hmac.new(client.secret.encode(), signed, hashlib.sha256).hexdigest(),
    }


def _fee(fee: dict[str, Any]) -> str:
    names = ("currency", "instrument_type", "fee_type", "maker_fee", "taker_fee")
    return " ".join(str(fee.get(name, "?")) for name in names)


def contract_fees(instruments: Iterable[Instrument]) -> list[str]:
    """The contracts' own rates, fractions of notional, in words: one text for all that pay the same."""
    same: dict[str, list[str]] = {}
    for i in instruments:
        same.setdefault(f"maker {i.maker_fee:g} taker {i.taker_fee:g}", []).append(i.name)
    return [f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {rate}" for rate, names in same.items()]


def _compare(facts: AccountFacts, margin_model: str | None, max_skew_ms: float, must_trade: bool) -> None:
    if not abs(facts.clock_skew_ms) <= max_skew_ms + facts.round_trip_ms / 2:
        raise ConfigError(
            f"clock: expected within {max_skew_ms:.0f} ms of the venue's, found {facts.clock_skew_ms:+.0f} ms"
        )
    if must_trade and not facts.may_trade:
        found = " ".join(sorted(facts.scopes)) or "none"
        raise ConfigError(f"key: expected the scope {TRADE_SCOPE}, found {found}")
    for currency, model in facts.margin_models.items():
        if margin_model is not None and model != margin_model:
            raise ConfigError(f"margin model of {currency}: expected {margin_model}, found {model}")


@contextmanager
def _starting(doing: str) -> Iterator[None]:
    """A failure in our words. A refused key is a matter of configuration, all else of the venue."""
    import ccxt

    try:
        yield
    except (ccxt.BaseError, OutcomeUnknown, TypeError, LookupError, AttributeError) as error:
        outcome = classify(error)
        reason = " ".join(outcome.reason.split())  # a page of HTML is many lines
        if outcome.certain and isinstance(error, ccxt.AuthenticationError):
            raise ConfigError(f"{doing}: the venue refused the key: {reason}: are id and secret its own?") from error
        raise VenueError(f"{doing}: {reason}") from error


@dataclass(frozen=True, slots=True)
class CancelledOwn:
    """How many cancels the venue confirmed, the labels still open at the last look, and what went wrong."""

    cancelled: int
    left: tuple[str, ...]
    why: str = ""


async def cancel_all_own(client: Client, prefix: str = OWN_PREFIX, looks: int = ROUNDS_MAX) -> CancelledOwn:
    """Cancel the open orders whose label has the shape of ours (and starts with `prefix`), and no others.

    For the watchdog and for `dea-daemon cancel-all`. Looks again until none is left, so an order still on its
    way at the first look is found by a later one; gives up after so many `looks`. Never raises VenueError.
    """
    cancelled, why = 0, ""
    left: tuple[str, ...] = ()
    for look in range(looks):
        if look:
            await asyncio.sleep(ROUND_PAUSE_S)
        try:
            orders = await _own_open(client, prefix)
        except Exception as error:  # noqa: BLE001 the last line of defence tries again whatever it was
            why = classify(error).reason
            continue
        left = tuple(sorted(orders.values()))
        if not orders:
            return CancelledOwn(cancelled, ())
        failures = await _cancel_each(client, list(orders))
        cancelled += len(orders) - len(failures)
        why = "; ".join(sorted(set(failures)))
    return CancelledOwn(cancelled, left, why)


async def highest_epoch(client: Client, currencies: Iterable[str]) -> int:
    """The highest epoch among our open and recent orders, by settlement currency: a ledger that was lost or
    restored must not use it again. Older ones are below the clock's own minute."""
    with _starting("reading recent orders"):
        labels = list((await _own_open(client, OWN_PREFIX)).values())
        for currency in currencies:
            recent = {"currency": currency, "count": EPOCH_ORDERS, "include_unfilled": True}
            rows = await ask(client, "private_get_get_order_history_by_currency", recent)
            labels += [raw.get("label", "") for raw in rows]
    return max((epoch_of(label) for label in labels if is_own(label)), default=0)


async def _own_open(client: Client, prefix: str) -> dict[str, str]:
    """venue_order_id → label."""
    rows = await ask(client, "private_get_get_open_orders", {})
    labels = {raw["order_id"]: raw.get("label", "") for raw in rows}
    return {key: label for key, label in labels.items() if is_own(label) and label.startswith(prefix)}


async def _cancel_each(client: Client, venue_order_ids: list[str]) -> list[str]:
    """Cancel a few at a time; why each of those that failed did."""
    turn = asyncio.Semaphore(CANCELS_AT_ONCE)

    async def cancel(venue_order_id: str) -> str:
        async with turn:
            try:
                await ask(client, "private_get_cancel", {"order_id": venue_order_id})
            except Exception as error:  # noqa: BLE001 as above
                return classify(error).reason
        return ""

    reasons = await asyncio.gather(*(cancel(order_id) for order_id in venue_order_ids))
    return [reason for reason in reasons if reason]
