"""The trial itself: what it does to workers is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from crash.app import LISTENS
from crash.trial import Trial

# It ends in order when it is told, and a second signal kills it meanwhile, as it does a
# worker whose loop is closed already.
ENDS_ONCE = f"""
import signal, time

def told(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(0.3)
    raise SystemExit

signal.signal(signal.SIGTERM, told)
print({LISTENS!r}, flush=True)
time.sleep(60)
"""


class Stubborn(Trial):
    """Of workers that know nothing of streams."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", ENDS_ONCE]


@pytest.mark.timeout(60)
def test_a_worker_that_was_only_just_started_ends_in_order(tmp_path: Path) -> None:
    with Trial(tmp_path, records=10, rate=1000, seed=1, workers=1) as trial:
        trial.end_worker()


@pytest.mark.timeout(60)
def test_each_worker_is_told_once_to_end(tmp_path: Path) -> None:
    with Stubborn(tmp_path, records=10, rate=1000, seed=1) as trial:
        trial.have_them_leave()


@pytest.mark.timeout(60)
def test_a_worker_that_has_slept_is_told_to_end_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crash.trial.ASLEEP_S", 0.1)
    with Stubborn(tmp_path, records=10, rate=1000, seed=1, workers=1) as trial:
        trial.wait(0.5)
        trial.stop_worker()
        trial.end_worker()
