"""Configuration of slow factors: where each is told, how often it is asked for, and when it counts as published."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from dea_daemon.domain.parameters import NonNegative, Positive, SlowFactor
from dea_daemon.shell.pydantic_errors import refuse
from dea_daemon.shell.references import HttpUrl, Secret

VINTAGES_MOST = 2_000  # FRED tells no more of one series at once: "exceeds the maximum number of vintage dates"


class Source(SlowFactor):
    """What all sources have in common. Nothing is contacted but the URL that stands here."""

    every_s: float = Field(21_600.0, ge=0.05, allow_inf_nan=False, description="how often it is asked")
    lag_h: NonNegative = Field(
        48.0,
        description="published at most so long after the time a value is about (a day is told by its beginning); a "
        "value that was received sooner counts from its receipt",
    )
    backfill_lag_h: NonNegative = Field(
        24.0, description="what the first answer tells of the past counts as known so long after its publication"
    )
    history_days: Positive = Field(1_500.0, description="how far back the first question goes")
    restated_days: NonNegative = Field(60.0, description="each later question goes back so far, for restatements")
    revisions: Literal["accept", "first"] = Field(
        "accept", description="accept: a restatement counts from its receipt; first: what was told first stays"
    )
    timeout_s: float = Field(20.0, gt=0.0, le=120.0, description="an answer that is not whole by then is none")

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.lowest is not None and self.highest is not None and not self.lowest < self.highest:
            bounds = f"lowest is {self.lowest:,.15g} and highest {self.highest:,.15g}"
            raise self._refused(
                f"{bounds}: no value would be believed (lowest must be below highest)", "highest", "lowest"
            )
        return self

    def _refused(self, why: str, *options: str) -> ValidationError:
        """Said of the first of these options that was written."""
        option = next((option for option in options if option in self.model_fields_set), options[-1])
        error = InitErrorDetails(type=refuse(why), loc=(option,), input=getattr(self, option))
        return ValidationError.from_exception_data(type(self).__name__, [error])

    @property
    def core(self) -> SlowFactor:
        """What of it the core is told."""
        return SlowFactor(**{name: getattr(self, name) for name in SlowFactor.model_fields})


class CoinMetrics(Source):
    """On-chain metrics, from Coin Metrics' community API."""

    kind: Literal["coinmetrics"] = "coinmetrics"
    asset: str = Field(pattern=r"^[a-z0-9_.-]+$", description="btc, eth, …")
    metric: str = Field(pattern=r"^[A-Za-z0-9_]+$", description="CapMVRVCur, AdrActCnt, …")
    url: HttpUrl = Field("https://community-api.coinmetrics.io/v4", description="of the API")


class FearGreed(Source):
    """The Fear & Greed index, 0 to 100."""

    kind: Literal["fear_greed"] = "fear_greed"
    lowest: float | None = Field(0.0, allow_inf_nan=False, description="a value below this is refused")
    highest: float | None = Field(100.0, allow_inf_nan=False, description="a value above this is refused")
    lag_h: NonNegative = Field(24.0, description="published at most so long after its day began")
    url: HttpUrl = Field("https://api.alternative.me", description="of the API")


class Fred(Source):
    """A series of the St. Louis Fed: by the API with a key, else by the CSV anybody may download."""

    kind: Literal["fred"] = "fred"
    series: str = Field(pattern=r"^[A-Za-z0-9_]+$", description="DGS10, VIXCLS, DTWEXBGS, …")
    lag_h: NonNegative = Field(
        192.0, description="published at most so long after its day began; 96 is enough for what comes the next workday"
    )
    api_key: Secret | None = Field(None, description="where the key is found")
    vintages: bool = Field(False, description="ask for what was known when, too; needs the key")
    url: HttpUrl | None = Field(None, description="of the API, or of the site the CSV is from")

    @model_validator(mode="after")
    def _check_vintages(self) -> Self:
        if self.vintages and self.api_key is None:
            raise self._refused("needs api_key: only the API tells what was known when", "vintages")
        days = max(self.history_days, self.restated_days)
        if self.vintages and days > VINTAGES_MOST:
            why = f"at most {VINTAGES_MOST:,} days with vintages, not {days:,.15g}: FRED tells no more of them at once"
            raise self._refused(why, "history_days" if days == self.history_days else "restated_days")
        return self

    @property
    def base_url(self) -> str:
        return self.url or ("https://api.stlouisfed.org" if self.api_key else "https://fred.stlouisfed.org")


class HttpJson(Source):
    """JSON of your own, over HTTP. Paths are names and numbers between dots."""

    kind: Literal["http_json"] = "http_json"
    url: HttpUrl = Field(description="asked with GET")
    query: dict[str, str] = Field(default_factory=dict, description="what stands behind the ? of the URL")
    api_key: Secret | None = Field(None, description="where a key is found")
    api_key_name: str = Field("api_key", description="the key's name in the query")
    rows: str = Field("", description="path to the list of values, or to the only one")
    time: str | None = Field(None, description="path in a row to the time it is about; without it: when it was asked")
    value: str = Field("value", description="path in a row to the value")


class Table(Source):
    """Columns of a CSV."""

    time_column: str | None = Field(None, description="of the time a value is about; without it the first")
    value_column: str | None = Field(None, description="of the value; without it the second")


class CsvUrl(Table):
    """A CSV of your own, over HTTP."""

    kind: Literal["csv"] = "csv"
    url: HttpUrl = Field(description="asked with GET")
    query: dict[str, str] = Field(default_factory=dict, description="what stands behind the ? of the URL")


class WatchedFile(Table):
    """A CSV of your own on this machine, read again whenever it changed. Write a new one and rename it."""

    kind: Literal["file"] = "file"
    path: Path = Field(description="of the file")
    every_s: float = Field(5.0, ge=0.05, allow_inf_nan=False, description="how often it is looked at")
    lag_h: NonNegative = Field(0.0, description="published so long after the time a value is about")


AnySource = Annotated[CoinMetrics | FearGreed | Fred | HttpJson | CsvUrl | WatchedFile, Field(discriminator="kind")]
