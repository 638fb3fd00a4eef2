import time
from datetime import UTC, datetime, timedelta

import torch

from mnist_lstm.pipeline.timing import Clock, now


def test_now_is_utc() -> None:
    there = datetime.fromisoformat(now())
    assert there.utcoffset() == timedelta(0)
    assert abs(there - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_reading() -> None:
    clock = Clock(torch.device("cpu"), seconds=100)
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
