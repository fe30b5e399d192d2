"""The configuration: everything a run may be told, from one YAML file.

`Settings` is the core's Parameters plus what only the outside needs: venues, keys, files, logs. Unknown
options, missing values and contradictions are errors, all told at once with file, line and column.

A value may come from the environment as `${NAME}` where a URL is wanted. Keys are given by reference only.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationError

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.factors import FactorIndex
from dea_daemon.domain.parameters import FixedTarget, Parameters, Positive, Section
from dea_daemon.shell import calibration_file
from dea_daemon.shell.backtest_settings import BacktestSettings
from dea_daemon.shell.factor_settings import AnySource
from dea_daemon.shell.pydantic_errors import problems, refuse
from dea_daemon.shell.references import Environ, HttpUrl, Secret, WsUrl
from dea_daemon.shell.watch_settings import AlertSettings, HttpSettings, RecordSettings
from dea_daemon.shell.yaml_errors import Location, Problem, did_you_mean, read

if TYPE_CHECKING:  # numpy and aiohttp would double the time of `check`
    from dea_daemon.domain.instruments import Instrument
    from dea_daemon.shell.ccxt_client import VenueAccess

Environment = Literal["simulated", "testnet", "live"]
TICKS_MISSED = 4  # before the watchdog may take the daemon for hung

# --- venues -------------------------------------------------------------------------------------------------


def _instrument_name(value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_*.-]+", value):
        raise refuse("must be a contract's name, such as BTC-PERPETUAL; * stands for anything")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class VenueSection(Section):
    """One account at one venue."""

    venue: ClassVar[str]
    separators: ClassVar[tuple[str, ...]]  # what follows the underlying in the name of a contract
    hosts: ClassVar[dict[str, frozenset[str]]]  # of testnet and live; anywhere else is refused
    ports: ClassVar[tuple[int | None, ...]] = (None, 443)

    environment: Environment = Field(description="simulated is on this machine, live is real money")
    account: str = Field("main", pattern=r"^[A-Za-z0-9_-]+$", description="our name for the account")
    instruments: tuple[Annotated[str, AfterValidator(_instrument_name)], ...] = Field(
        min_length=1,
        description="contracts to watch and trade, by name or pattern; a pattern takes no options",
    )
    http_url: HttpUrl | None = Field(None, description="where requests go; needed if simulated")
    ws_url: WsUrl | None = Field(None, description="where the streams are; needed if simulated")

    def select(self, listed: Iterable["Instrument"]) -> list["Instrument"]:
        """The venue's contracts asked for, each once. Raises ConfigError where a name finds none."""
        listed = list(listed)
        chosen: dict[str, Instrument] = {}
        for where, wanted, found in self._matches(listed):
            if not found:
                guess = did_you_mean(wanted, [i.name for i in listed])
                raise ConfigError(f"venues.{self.venue}.{where}: the venue lists no {wanted}{guess}")
            chosen |= {i.name: i for i in found}
        return list(chosen.values())

    def _matches(self, listed: list["Instrument"]) -> Iterator[tuple[str, str, list["Instrument"]]]:
        """Each key and pattern of ours with the contracts it takes."""
        for wanted in self.instruments:
            found = [i for i in listed if fnmatchcase(i.name, wanted)]
            if "*" in wanted:  # a chain has a thousand options
                found = [i for i in found if i.kind != "option"]
            yield "instruments", wanted, found

    @property
    def patterns(self) -> tuple[str, ...]:
        """Every name and pattern by which contracts are asked for."""
        return self.instruments

    def wants(self, name: str) -> bool:
        """Whether a contract of this name may be asked for; `takes` knows, once its kind is known."""
        return any(fnmatchcase(name, wanted) for wanted in self.patterns)

    def takes(self, instrument: "Instrument") -> bool:
        """Whether this contract is asked for."""
        return any(found for _, _, found in self._matches([instrument]))

    def misplaced(self, url: str) -> str:
        """Why a URL does not fit the environment, or ""."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if self.environment == "simulated":
            return "" if _is_loopback(host) else f"{host} is not this machine: a simulated venue is on loopback"
        wanted = self.hosts[self.environment]
        if host not in wanted or parts.port not in self.ports:
            return f"{parts.netloc} is not {self.environment} {self.venue} ({', '.join(sorted(wanted))})"
        return "" if parts.scheme in ("https", "wss") else "must be encrypted: https or wss"

    def may_have(self, underlying: str) -> bool:
        """Whether some name in `instruments` can be a contract on `underlying`."""
        starts = [underlying + separator for separator in self.separators]
        heads = [(name.partition("*")[0], "*" in name) for name in self.instruments]
        return any(
            head.startswith(start) or (open_ended and start.startswith(head))
            for head, open_ended in heads
            for start in starts
        )


class Rate(Section):
    """One budget of requests."""

    per_s: Positive = Field(description="sustained")
    burst: int = Field(gt=0, description="at once, after a pause")


class Throttle(Section):
    """How fast we may ask; the defaults are Deribit's lowest tier."""

    orders: Rate = Field(Rate(per_s=5, burst=20), description="creates and cancels")
    queries: Rate = Field(Rate(per_s=10, burst=50), description="everything else")
    cancel_reserve: int = Field(5, gt=0, description="of the orders' burst, so many only for cancels")


class DeribitSection(VenueSection):
    """Deribit: market data and orders."""

    venue: ClassVar[Literal["deribit"]] = "deribit"
    separators: ClassVar = ("-", "_")
    hosts: ClassVar = {
        "testnet": frozenset({"test.deribit.com"}),
        "live": frozenset({"www.deribit.com"}),
    }

    client_id: Secret = Field(description="where the API key's client id is found")
    client_secret: Secret = Field(description="where the API key's secret is found")
    options: tuple[Annotated[str, AfterValidator(_instrument_name)], ...] = Field(
        (), description="options to follow, those listed later included: BTC-* is the chain settled in coin"
    )
    margin_model: Literal["segregated_sm", "segregated_pm", "cross_sm", "cross_pm"] | None = Field(
        None, description="the account must have this margin model, or we refuse to start"
    )
    acknowledge_withdraw_scope: bool = Field(False, description="start although the key may withdraw")
    timeout_ms: int = Field(10_000, gt=0, description="an answer later than this is not waited for")
    max_contracts: int = Field(2_000, gt=0, description="follow no more at once; at the start more is an error")
    throttle: Throttle = Throttle()

    @property
    def patterns(self) -> tuple[str, ...]:
        return self.instruments + self.options

    def _matches(self, listed: list["Instrument"]) -> Iterator[tuple[str, str, list["Instrument"]]]:
        yield from super()._matches(listed)
        for wanted in self.options:
            yield "options", wanted, [i for i in listed if i.kind == "option" and fnmatchcase(i.name, wanted)]

    def select(self, listed: Iterable["Instrument"]) -> list["Instrument"]:
        chosen = super().select(listed)
        if len(chosen) > self.max_contracts:
            raise ConfigError(
                f"venues.deribit.instruments and options: {len(chosen):,} contracts match, more than "
                f"venues.deribit.max_contracts ({self.max_contracts:,}): name fewer, or allow more"
            )
        return chosen

    def access(self) -> "VenueAccess":
        """What the gateway wants to know."""
        from dea_daemon.shell.ccxt_client import Budget, VenueAccess  # late: aiohttp

        rates = self.throttle
        return VenueAccess(
            venue=self.venue,
            account=self.account,
            environment=self.environment,
            client_id=self.client_id.reveal(),
            client_secret=SecretStr(self.client_secret.reveal()),
            http_url=self.http_url,
            ws_url=self.ws_url,
            timeout_ms=self.timeout_ms,
            orders=Budget(rates.orders.per_s, rates.orders.burst),
            queries=Budget(rates.queries.per_s, rates.queries.burst),
            cancel_reserve=rates.cancel_reserve,
        )


class BinanceUsdmSection(VenueSection):
    """Binance USD-M futures: market data only, so no key."""

    venue: ClassVar = "binanceusdm"
    separators: ClassVar = ("USD",)
    hosts: ClassVar = {
        "testnet": frozenset({"testnet.binancefuture.com", "stream.binancefuture.com", "demo-fapi.binance.com"}),
        "live": frozenset({"fapi.binance.com", "fstream.binance.com"}),
    }


class OkxSection(VenueSection):
    """OKX: market data only, so no key."""

    venue: ClassVar = "okx"
    separators: ClassVar = ("-",)
    hosts: ClassVar = {
        "testnet": frozenset({"www.okx.com", "wspap.okx.com"}),
        "live": frozenset({"www.okx.com", "ws.okx.com", "eea.okx.com", "wseea.okx.com", "us.okx.com", "wsus.okx.com"}),
    }
    ports: ClassVar = (None, 443, 8443)  # its streams are at the last


class Venues(Section):
    """By venue."""

    deribit: DeribitSection | None = None
    binanceusdm: BinanceUsdmSection | None = None
    okx: OkxSection | None = None

    @property
    def sections(self) -> tuple[VenueSection, ...]:
        """Those that are configured."""
        return tuple(section for section in (self.deribit, self.binanceusdm, self.okx) if section is not None)


# --- everything ---------------------------------------------------------------------------------------------


class TapeSettings(Section):
    """The record of every event the core folded, for replay and study."""

    enabled: bool = Field(True, description="write it")
    max_mb: int = Field(1_000, gt=0, description="the oldest segments go when all are larger than this")
    max_age_h: Positive = Field(168.0, description="and when older than this")


class LogSettings(Section):
    """On stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is below is not written")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal")


class WatchdogSettings(Section):
    """A process beside the daemon that cancels its orders, and nothing else, where the daemon stops."""

    enabled: bool = Field(True, description="start it with `run`; without it nothing new is risked")
    after_s: float = Field(
        15.0, ge=2.0, allow_inf_nan=False, description="no decision for so long is a daemon that hangs"
    )


class RecallSettings(Section):
    """The past as the venues' public candles tell it, asked for at the start: without it, volatility and VaR begin from
    what is assumed."""

    enabled: bool = Field(True, description="ask for it")
    days: float = Field(32.0, ge=1.0, le=90.0, description="how far back; volatility remembers a month")
    within_s: float = Field(20.0, gt=0.0, le=120.0, description="what has not come by then is done without")


FactorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Settings(Parameters):
    """One configuration file."""

    armed: bool = Field(False, description="send orders; if not, decisions are recorded only")
    state_dir: Path = Field(Path("var"), description="for ledger and tape; $STATE_DIRECTORY wins")
    venues: Venues = Field(description="where to trade and watch")
    tape: TapeSettings = TapeSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    alerts: AlertSettings = AlertSettings()
    record: RecordSettings = RecordSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    recall: RecallSettings = RecallSettings()
    backtest: BacktestSettings = BacktestSettings()
    factors: Mapping[FactorName, AnySource] = Field(
        default_factory=dict, description="slow factors and where they are told, by a name of yours"
    )
    calibration: Path | None = Field(
        None, description="a file `dea-daemon calibrate` wrote, laid over this one; beside it if not absolute"
    )
    _calibrated: tuple[str, ...] = PrivateAttr(())

    @property
    def calibrated(self) -> tuple[str, ...]:
        """What the calibration changed of the file, a line an option."""
        return self._calibrated

    @property
    def parameters(self) -> Parameters:
        """The core's part."""
        core = {name: getattr(self, name) for name in Parameters.model_fields}
        return Parameters(**core | {"factors": {name: source.core for name, source in self.factors.items()}})


def load(path: Path, environ: Environ = os.environ) -> Settings:
    """Read and check a configuration file.

    Raises ConfigError listing every problem with its place; its subclasses ConfigMissing (no such file) and
    ConfigForbidden (others may write it, or read a secret) tell those apart.
    """
    source = read(path)
    found = [Problem(location, _no_value(location), on_key=True) for location in source.empty]
    settings = None
    try:
        settings = _calibrated(_settings(source.data, environ), source.data, path, environ)
    except ValidationError as error:
        found += [p for p in problems(error, Settings) if p.location not in source.empty]
    found += contradictions(settings) if settings else []
    if found or settings is None:
        raise source.refusal(found)
    state_dir = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd may name several
    return settings.model_copy(update={"state_dir": Path(state_dir)}) if state_dir else settings


def _settings(data: Any, environ: Environ) -> Settings:
    """Strict, as JSON: a list may be a tuple, but "5" is no number and `yes` is not true. ValidationError."""
    return Settings.model_validate_json(json.dumps(data), strict=True, context={"environ": environ})


def _calibrated(settings: Settings, data: Any, path: Path, environ: Environ) -> Settings:
    """With the calibration laid over it, checked as if it had stood in the file. ConfigError, ValidationError."""
    if settings.calibration is None:
        return settings
    set_to = calibration_file.parameters(path.parent / settings.calibration)
    unknown = set(set_to.get("allocator", {}).get("targets", {})) - set(settings.allocator.targets)
    if unknown:
        raise ConfigError(f"{settings.calibration}: sets bands of {', '.join(sorted(unknown))}, which is no target")
    laid = _settings(calibration_file.laid_over(data, set_to), environ)
    laid._calibrated = calibration_file.changes(set_to, settings.parameters.model_dump())
    return laid


def _no_value(location: Location) -> str:
    if str(location[-1])[:3].isdigit():  # {delta_usd: 5,000} is two options to YAML
        return "is the rest of a number? Write 5000 or 5_000, not 5,000"
    return "has no value: give one, or remove the option"


def contradictions(settings: Settings) -> Iterator[Problem]:
    """What each option allows by itself but not beside the others."""
    if not settings.venues.sections:
        yield Problem(("venues",), f"names no venue: {', '.join(Venues.model_fields)}", on_key=True)
    for section in settings.venues.sections:
        yield from _venue_contradictions(section)
    if settings.armed and settings.venues.deribit is None:
        yield Problem(("armed",), "no configured venue takes orders: deribit does")
    least_s = TICKS_MISSED * settings.decide_every_ms / 1_000
    if settings.watchdog.enabled and settings.watchdog.after_s < least_s:
        yield Problem(("watchdog", "after_s"), f"is less than {TICKS_MISSED} times decide_every_ms, {least_s:g} s")
    guards, forecast = settings.guards, settings.forecast
    if guards.max_order_usd > guards.max_instrument_usd:
        yield Problem(
            ("guards", "max_order_usd"),
            f"{guards.max_order_usd:,.15g} is above guards.max_instrument_usd, {guards.max_instrument_usd:,.15g}",
        )
    if forecast.vol_floor > forecast.vol_cap:
        yield Problem(("forecast", "vol_floor"), f"is above forecast.vol_cap, {forecast.vol_cap:g}")
    if settings.allocator.fast and find_spec("numba") is None:
        yield Problem(("allocator", "fast"), "needs numba: pip install 'dea-daemon[fast]'")
    yield from _target_contradictions(settings)
    yield from _factor_contradictions(settings)
    yield from _view_contradictions(settings)


def _venue_contradictions(section: VenueSection) -> Iterator[Problem]:
    here = ("venues", section.venue)
    for option in ("http_url", "ws_url"):
        url: str | None = getattr(section, option)
        wrong = section.misplaced(url) if url else ""
        if url is None and section.environment == "simulated":
            wrong = "missing: where is the simulated venue?"
        if wrong:
            yield Problem((*here, option), wrong)
    for i, name in enumerate(section.instruments):
        if name in section.instruments[:i]:
            yield Problem((*here, "instruments", i), f"{name} is listed twice")
    if isinstance(section, DeribitSection) and section.throttle.cancel_reserve >= section.throttle.orders.burst:
        yield Problem((*here, "throttle", "cancel_reserve"), "leaves nothing of orders.burst for creates")


def _target_contradictions(settings: Settings) -> Iterator[Problem]:
    max_net_usd = settings.guards.max_net_usd
    names = [name for section in settings.venues.sections for name in section.instruments]
    for underlying, target in settings.allocator.targets.items():
        here = ("allocator", "targets", underlying)
        if not any(section.may_have(underlying) for section in settings.venues.sections):
            yield Problem(here, f"no instrument is on {underlying} ({', '.join(names)})", on_key=True)
        band_usd = 0.0 if not isinstance(target, FixedTarget) or isinstance(target.band_usd, str) else target.band_usd
        if isinstance(target, FixedTarget) and abs(target.delta_usd) + band_usd > max_net_usd:
            yield Problem(
                (*here, "delta_usd"),
                f"cannot be reached: {abs(target.delta_usd):,.15g} and its band of {band_usd:,.15g} "
                f"are beyond guards.max_net_usd, {max_net_usd:,.15g}",
            )


def _factor_contradictions(settings: Settings) -> Iterator[Problem]:
    targets = tuple(settings.allocator.targets)
    known = [name for name in FactorIndex(targets).names if not name.startswith("delta:")]
    options = any(getattr(section, "options", ()) for section in settings.venues.sections)
    for name in settings.allocator.factors:
        here = ("allocator", "factors", name)
        if name not in known:
            guess = did_you_mean(name, known)
            yield Problem(here, f"is no exposure of a targeted underlying ({', '.join(targets)}){guess}", on_key=True)
        elif not (options or name.startswith(("basis", "carry"))):
            yield Problem(here, "needs options to trade: the venue's `options` names none", on_key=True)


def _view_contradictions(settings: Settings) -> Iterator[Problem]:
    names = [name for section in settings.venues.sections for name in section.instruments]
    for underlying in settings.forecast.views:
        if not any(section.may_have(underlying) for section in settings.venues.sections):
            here = ("forecast", "views", underlying)
            yield Problem(here, f"no instrument is on {underlying} ({', '.join(names)})", on_key=True)


def warnings(settings: Settings) -> Iterator[str]:
    """What is allowed, but should be meant."""
    if settings.calibration is not None:
        yield from (f"{settings.calibration}: {change}" for change in settings.calibrated or ("changes nothing",))
    for section in settings.venues.sections:
        if settings.armed and section.environment == "live" and isinstance(section, DeribitSection):
            yield f"armed on live {section.venue}: orders are sent as soon as it starts, with real money"
            if not settings.watchdog.enabled:
                yield "no watchdog: should the daemon die, its orders stay at the venue"
        if isinstance(section, DeribitSection) and section.acknowledge_withdraw_scope:
            yield f"the key for {section.venue} may be one that can withdraw"
    if not settings.allocator.targets:
        yield "no targets: nothing will be traded"
    learners = settings.forecast.learners
    if learners.trial.promotion == "automatic":
        yield "a forecaster that won its trial is traded without asking (trial.promotion)"
    elif learners.combine == "weights" and not any(learners.weights.values()):
        return
    if all(target.kind != "return" for target in settings.allocator.targets.values()):
        yield "forecasters have weight, and no target is of kind return: nothing they say changes an exposure"
