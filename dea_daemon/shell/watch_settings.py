"""Configuration of what watches a run: web view and metrics, alerts that leave the machine, captures of feeds."""

from typing import Annotated, Literal

from pydantic import Field

from dea_daemon.domain.parameters import Positive, Section
from dea_daemon.shell.references import Secret


class HttpSettings(Section):
    """The read-only web view and the metrics, over TCP."""

    enabled: bool = Field(False, description="serve them")
    host: str = Field("127.0.0.1", description="where to listen; anything but loopback shows your positions to others")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8700, description="0: any that is free")


class TelegramSettings(Section):
    """A bot that writes to one chat."""

    token: Secret = Field(description="where the bot's token is found")
    chat_id: str = Field(description="the chat's number, or @channel")


class AlertSettings(Section):
    """What a person should hear of at once. A sink that fails never holds up trading."""

    webhook: Secret | None = Field(None, description="where the URL is found; alerts are posted to it as JSON")
    telegram: TelegramSettings | None = None
    min_level: Literal["warning", "critical"] = Field("warning", description="what is below is not sent")
    repeat_after_s: Positive = Field(900.0, description="the same alert again only after this")
    per_hour: int = Field(30, gt=0, description="no more than this to one sink; what is left out is counted")


class RecordSettings(Section):
    """Raw messages of every stream, for `backtest --capture`."""

    enabled: bool = Field(False, description="write them to captures/ in the state directory")
    max_mb: int = Field(1_000, gt=0, description="the oldest files go when all are larger than this")
