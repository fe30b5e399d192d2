"""Recorded data that lies beside the repository, or nowhere: tests that want it skip without it."""

import os
from pathlib import Path

import pytest


def shared(path: str) -> Path:
    """A file under $DEA_SHARED_DATA, else under ../shared/data beside the repository; skips where absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    file = Path(os.environ.get("DEA_SHARED_DATA", beside)) / path
    if not file.exists():
        pytest.skip(f"no recorded data: {path} (set DEA_SHARED_DATA)")
    return file
