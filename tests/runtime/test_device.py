"""Names of devices, and the message when there is no such device."""

from __future__ import annotations

import pytest
import torch

from detect.errors import InputError
from detect.runtime.device import select_device

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_cpu() -> None:
    assert select_device("cpu") == torch.device("cpu")


def test_auto() -> None:
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "cpu cuda", "CPU"])
def test_no_device(name: str) -> None:
    with pytest.raises(InputError, match=rf"--device {name}: is not a device; allowed: auto, cpu, cuda, cuda:N, mps"):
        select_device(name)


@pytest.mark.parametrize("name", ["meta", "xpu", "hpu"])
def test_devices_that_pytorch_knows_and_we_do_not(name: str) -> None:
    with pytest.raises(InputError, match=rf"--device {name}: "):
        select_device(name)


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "0", "7"])
def test_no_gpu(name: str) -> None:
    with pytest.raises(InputError, match=r"PyTorch sees 0 GPUs; use --device cpu or auto"):
        select_device(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_gpu() -> None:
    assert select_device("0") == torch.device("cuda:0")
    with pytest.raises(InputError, match=r"--device cuda:99: PyTorch sees \d+ GPUs"):
        select_device("99")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_no_mps() -> None:
    with pytest.raises(InputError, match="--device mps: is not available here; use --device cpu"):
        select_device("mps")
