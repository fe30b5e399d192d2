"""What is done aside: volatility surfaces are fitted and trees grown, each kind by a process of its own."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from dea_daemon.domain.commands import FitModel, FitSurface
from dea_daemon.domain.events import ModelFitted, SurfaceFitted
from dea_daemon.shell.worker import Kind


def _surface(fit: Callable[..., Any], asked: FitSurface) -> SurfaceFitted:
    return fit(asked.chain, asked.max_iv_spread)  # type: ignore[no-any-return]


def _no_surface(asked: FitSurface, why: str) -> SurfaceFitted:
    return SurfaceFitted(0, asked.chain.underlying, asked.chain.utc_ns, why=why)


def _model(grow: Callable[..., Any], asked: FitModel) -> ModelFitted:
    return replace(grow(asked.lessons), name=asked.name, asked_utc_ns=asked.asked_utc_ns)  # type: ignore[no-any-return]


def _no_model(asked: FitModel, why: str) -> ModelFitted:
    return ModelFitted(0, asked.name, asked.asked_utc_ns, why=why)


SURFACES = Kind(
    where="dea_daemon.shell.aside:SURFACES",
    started="surface_worker.started",
    lost="surface_worker.lost",
    function="dea_daemon.pricing.surface.fit:fit",
    question=FitSurface,
    answer=SurfaceFitted,
    about=lambda asked: asked.chain.underlying,
    call=_surface,
    none=_no_surface,
    timed=lambda fitted, ms: replace(fitted, quality=replace(fitted.quality, fit_ms=ms)),
)
MODELS = Kind(
    where="dea_daemon.shell.aside:MODELS",
    started="model_worker.started",
    lost="model_worker.lost",
    function="dea_daemon.research.trees:grow",
    question=FitModel,
    answer=ModelFitted,
    about=lambda asked: asked.name,
    call=_model,
    none=_no_model,
    timed=lambda fitted, ms: replace(fitted, fit_ms=ms),
    once=True,  # LightGBM holds some 100 MB, and is asked once a week
)
