import time
from datetime import UTC, datetime, timedelta

import pytest
import torch

from mnist_lstm.pipeline import timing
from mnist_lstm.pipeline.timing import Clock, now

LONG_AGO = "2026-01-02T03:04:05.006+00:00"


def test_now_is_utc() -> None:
    there = datetime.fromisoformat(now())
    assert there.utcoffset() == timedelta(0)
    assert abs(there - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_reading() -> None:
    clock = Clock(torch.device("cpu"), 100, LONG_AGO)
    busy_until = time.process_time() + 0.05
    while time.process_time() < busy_until:
        pass
    busy = clock.read(1)
    time.sleep(0.05)
    idle = clock.read(2)
    assert (busy.step, idle.step) == (1, 2)
    assert busy.seconds < clock.seconds
    assert 100.05 <= busy.seconds <= idle.seconds - 0.05
    assert busy.processor_percent > idle.processor_percent
    assert idle.memory_megabytes > 10
    assert busy.gpu_percent is busy.gpu_memory_megabytes is None


def test_no_row_is_before_another_if_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours = iter((5, 4, 3, 6))

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "SetBack":
            return cls(2026, 1, 2, next(hours), tzinfo=UTC)

    monkeypatch.setattr(timing, "datetime", SetBack)
    clock = Clock(torch.device("cpu"), 0, LONG_AGO)
    times = [clock.read(step).time for step in range(4)]
    assert [time[11:13] for time in times] == ["05", "05", "05", "06"]
    hours = iter((2,))
    assert now(after=LONG_AGO) == LONG_AGO
