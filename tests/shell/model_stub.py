"""What a test's worker calls in place of growing trees: how many regressors there are says what is to go wrong."""

import os
import time

from dea_daemon.domain.commands import FitModel
from dea_daemon.domain.events import ModelFitted
from dea_daemon.domain.models import Lessons, Trees

FUNCTION = "tests.shell.model_stub:grow"
PLAIN, HANG, DIE, ODD = range(4)
TREES = Trees((0, 1, 2, 0, 0, 0, 0), (0.0, 0.1, float("inf"), 1.0, 1.0, 1.0, 1.0), (0.125,) * 8)


def question(what: int = PLAIN, number: int = 1, name: str = "trees_1d") -> FitModel:
    return FitModel(name, number, Lessons(1.0, what, b"\0\1", b"\0" * 400_000, b""))


def grow(lessons: Lessons) -> ModelFitted:
    """The same trees always, or whatever was asked for."""
    match lessons.k:
        case 1:
            time.sleep(600.0)
        case 2:
            os._exit(3)
        case 3:
            raise ValueError("of nothing")
    return ModelFitted(0, "", 0, TREES, len(lessons.y), 0.5)
