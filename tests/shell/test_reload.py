"""What a reload may change, and which changes loosen."""

import pytest

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.reload import changes
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.demo import config_file

ENVIRON = {
    "DEA_SIMVENUE_HTTP_URL": "http://127.0.0.1:1",
    "DEA_SIMVENUE_WS_URL": "ws://127.0.0.1:1",
    "DEA_SIMVENUE_CLIENT_ID": "id",
    "DEA_SIMVENUE_CLIENT_SECRET": "secret",
}


@pytest.fixture
def settings() -> Settings:
    return load(config_file("demo.yaml"), ENVIRON)


def changed(settings: Settings, section: str, **options: object) -> Settings:
    part = getattr(settings, section).model_copy(update=options)
    return settings.model_copy(update={section: part})


def test_what_is_the_same_is_no_change(settings):
    assert changes(settings, load(config_file("demo.yaml"), ENVIRON)) == []


@pytest.mark.parametrize(
    ("section", "option", "looser", "tighter"),
    [
        ("guards", "max_net_usd", 2e6, 1e5),
        ("guards", "max_drawdown", 0.9, 0.1),
        ("guards", "collar_bp", 80.0, 10.0),
        ("state", "stale_book_ms", 9_000, 500),
        ("execution", "skew_margin_ms", 0, 5_000),
    ],
)
def test_a_looser_limit_is_told_from_a_tighter_one(settings, section, option, looser, tighter):
    (more,) = changes(settings, changed(settings, section, **{option: looser}))
    (less,) = changes(settings, changed(settings, section, **{option: tighter}))
    assert (more.option, more.loosens, less.loosens) == (f"{section}.{option}", True, False)
    assert str(more).endswith("(looser)")


def test_one_more_currency_taken_at_a_dollar_is_looser(settings):
    (more,) = changes(settings, changed(settings, "state", stable_currencies=("USD", "USDC", "USDT", "DAI")))
    (less,) = changes(settings, changed(settings, "state", stable_currencies=("USD",)))
    assert (more.loosens, less.loosens) == (True, False)


AT_LEAST = {"min_liquidation_distance", "var_annual_vol"}


def test_every_limit_of_the_guards_is_judged(settings):
    """All are upper bounds but those: a new one of another kind must be given its direction."""
    for option, value in settings.guards.model_dump().items():
        if value is None:
            with_limit = changed(settings, "guards", **{option: 0.5})
            (came,), (went,) = changes(settings, with_limit), changes(with_limit, settings)
            assert went.loosens and not came.loosens, option
        here = changed(settings, "guards", **{option: 0.5 if value is None else value})
        (change,) = changes(here, changed(here, "guards", **{option: here.guards.model_dump()[option] * 2}))
        assert change.loosens is (option not in AT_LEAST), option


def test_a_target_that_came_or_went_is_a_change_and_no_loosening(settings):
    fewer = {name: target for name, target in settings.allocator.targets.items() if name == "BTC"}
    (change,) = changes(settings, changed(settings, "allocator", targets=fewer))
    assert (change.option, change.after, change.loosens) == ("allocator.targets.ETH", None, False)


def test_what_takes_a_restart_is_refused_with_all_of_it_named(settings):
    other = settings.model_copy(update={"http": settings.http.model_copy(update={"enabled": True, "port": 1})})
    with pytest.raises(ConfigError, match=r"http\.enabled(.|\n)*http\.port"):
        changes(settings, other)


def test_what_forecasters_learned_is_not_lost_by_a_reload(settings):
    finer = settings.forecast.learners.model_copy(update={"every_s": 1_800.0})
    with pytest.raises(ConfigError, match=r"learners\.every_s"):
        changes(settings, changed(settings, "forecast", learners=finer))
