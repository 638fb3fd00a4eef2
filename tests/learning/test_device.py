import pytest
import torch

from mnist_lstm import UserError
from mnist_lstm.learning import device


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, kind in ((0, "cpu"), (2, "cuda")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert device.choose("auto").type == kind
    assert torch.are_deterministic_algorithms_enabled()


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"train\.device is cuda, but .* no NVIDIA GPU"):
        device.choose("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="is cuda:2, but there is only cuda:0, cuda:1; write auto"):
        device.choose("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device is mps"):
        device.choose("mps")


def test_one_of_several_gpus_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    device.choose("cuda")
    assert current == []
    device.choose("cuda:1")
    assert current == [torch.device("cuda:1")]


def test_the_cpu_is_named_with_its_instructions() -> None:
    assert device.describe(torch.device("cpu")) == (
        f"cpu {torch.backends.cpu.get_cpu_capability()}"
    )
