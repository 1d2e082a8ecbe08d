from __future__ import annotations

import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.foreign.tensor_files import read_tensors
from tests.models.foreign.yolov5_files import their_classes, their_module, write_safetensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, -2]), "c": torch.tensor(0.5, dtype=torch.float16)}


class Reduced:
    """Unpickling it calls something."""

    def __init__(self, *value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple:
        return self.value


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def without(entries: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: content for key, content in entries.items() if key != name}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


# -------------------------------------------------------------------------------------------- PyTorch's archive


def test_state_dict(tmp_path: Path) -> None:
    assert_same(read_tensors(save(tmp_path / "x.pt", TENSORS)).tensors, TENSORS)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
)
def test_types(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"x": torch.tensor([0, 1, 1]).to(dtype), "empty": torch.zeros(0, 4, dtype=dtype)}
    assert_same(read_tensors(save(tmp_path / "x.pt", tensors)).tensors, tensors)


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Transposed, sliced and shared, as a state dict may hold them."""
    base = torch.arange(24.0).view(4, 6)
    tensors = {"whole": base, "transposed": base.t(), "slice": base[1:3, ::2], "scalar": base[3, 5]}
    assert_same(read_tensors(save(tmp_path / "x.pt", tensors)).tensors, tensors)


def test_pickled_module(tmp_path: Path) -> None:
    """Parameters, buffers and modules of a class that is not there, named as in a state dict."""
    tensors = {"0.conv.weight": torch.ones(2), "0.bn.running_mean": torch.zeros(2), "1.m.0.bias": torch.full((1,), 3.0)}
    with their_classes() as kind:
        save(tmp_path / "x.pt", their_module(tensors, kind, names=["a"], forward_hook=None))
        save(tmp_path / "y.pt", {"model": their_module(tensors, kind), "ema": None})
    with pytest.raises(ModuleNotFoundError):
        torch.load(tmp_path / "x.pt", weights_only=False)
    assert_same(read_tensors(tmp_path / "x.pt").tensors, tensors)
    assert read_tensors(tmp_path / "x.pt").names == ("a",)
    assert_same(read_tensors(tmp_path / "y.pt").tensors, tensors)


def test_modules_of_pytorch(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.SiLU()), nn.Linear(2, 2))
    assert_same(read_tensors(save(tmp_path / "x.pt", module)).tensors, dict(module.state_dict()))


def test_code_does_not_run(tmp_path: Path) -> None:
    """Payloads beside, inside and in place of what is wanted."""
    target = str(tmp_path / "made")
    payload = Reduced(os.system, (f"mkdir {target}",))
    module = nn.Linear(1, 1)
    module.hook = payload
    contents = [
        {**TENSORS, "d": payload},
        {"state_dict": TENSORS, "first": payload, "other": Reduced(eval, (f"__import__('os').mkdir({target!r})",))},
        {"model": module, "ema": None, "names": Reduced(getattr, (payload, "name"))},
    ]
    for content in contents:
        path = save(tmp_path / "x.pt", content)
        assert read_tensors(path).tensors
        assert not Path(target).exists()
    torch.load(tmp_path / "x.pt", weights_only=False, pickle_module=_Forgiving)  # the payload is what it claims to be
    assert Path(target).exists()


class _Forgiving:
    """``pickle`` whose ``getattr`` of a payload's result may fail."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return (lambda *_: None) if name == "getattr" else super().find_class(module, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an archive of PyTorch: it is empty$"),
        (b"\n weights: 3\n", "is not an archive of PyTorch: it is a text file that starts with 'weights: 3'$"),
        (b"PK\x03\x04" + bytes(100), "is an archive that is damaged, or was cut off$"),
        (pickle.dumps({"a": 1}), "is not an archive of PyTorch 1.6 or newer, or is damaged$"),
        (b"\x93NUMPY\x01\x00", "is not an archive of PyTorch 1.6 or newer, or is damaged$"),
        (
            struct.pack("<3iq", 0, 2, 5, 640) + bytes(80),
            r"is not an archive of PyTorch: it is a Darknet weights file; name it with \.weights at its end$",
        ),
        (
            (2).to_bytes(8, "little") + b"{}",
            "holds no tensors$",
        ),
    ],
)
def test_no_archive(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pt: {message}"):
        read_tensors(tmp_path / "x.pt")


def test_missing_and_folder(tmp_path: Path) -> None:
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read: No such file or directory"):
            read_tensors(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_tensors(tmp_path)


def test_old_format(tmp_path: Path) -> None:
    """Files of PyTorch before 1.6, as they are or cut off at any place; the suffix does not matter."""
    torch.save({"state_dict": TENSORS}, tmp_path / "x.th", _use_new_zipfile_serialization=False)
    assert_same(read_tensors(tmp_path / "x.th").tensors, TENSORS)
    whole = (tmp_path / "x.th").read_bytes()
    for length in (30, 60, 200, len(whole) - 1):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.pt: is damaged"):
            read_tensors(tmp_path / "cut.pt")


def test_a_damaged_file_of_the_old_format(tmp_path: Path) -> None:
    """Read or refused in one line, whatever a length in it claims; no memory is asked for that the file has not."""
    torch.save(TENSORS, tmp_path / "x.th", _use_new_zipfile_serialization=False)
    whole, draw = (tmp_path / "x.th").read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(20, len(damaged))] = draw.randrange(256)
        (tmp_path / "x.th").write_bytes(damaged)
        with suppress(InputError):
            read_tensors(tmp_path / "x.th")


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.safetensors")
    assert_same(read_tensors(tmp_path / "x.safetensors").tensors, TENSORS)
    write_safetensors(tmp_path / "x.pt", {"a": torch.arange(3.0)})
    assert read_tensors(tmp_path / "x.pt").tensors["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [{}, [], 3, {"a": 1}, {"model": {}}, {"model": 4}, nn.SiLU()])
def test_no_tensors(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match=r"x\.pt: holds neither a state dict nor a model"):
        read_tensors(save(tmp_path / "x.pt", content))


def test_every_truncation(tmp_path: Path) -> None:
    whole = save(tmp_path / "x.pt", TENSORS).read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "x.pt").write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_tensors(tmp_path / "x.pt")


def test_a_flipped_bit_in_the_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", {"a": torch.full((100,), 3.0)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((100,), 3.0).numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pt: is an archive that is damaged, or was cut off"):
        read_tensors(path)


def test_a_bomb(tmp_path: Path) -> None:
    """10 MB of zeros in 10 kB: PyTorch compresses nothing, so nothing is unpacked."""
    entries = entries_of(save(tmp_path / "x.pt", TENSORS))
    entries["x/data/0"] = bytes(10_000_000)
    path = write_entries(tmp_path / "bomb.pt", entries, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bomb\.pt: has compressed entries, which PyTorch does not write"):
        read_tensors(path)


def test_entries_that_overlap(tmp_path: Path) -> None:
    """A directory that lists one entry a thousand times."""
    path = write_entries(tmp_path / "x.pt", {"x/data.pkl": bytes(50_000)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist *= 1000
        archive._didModify = True
    with pytest.raises(InputError, match=r"x\.pt: its entries overlap"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: without(e, "x/data/0"), "is an archive that is damaged, or was cut off"),
        (lambda e: without(e, "x/data.pkl"), "it has no data.pkl"),
        (lambda e: {**e, "y/data.pkl": b""}, "it has no data.pkl"),
        (lambda e: {**e, "x/byteorder": b"big"}, "was written by a machine of another byte order"),
        (lambda e: {**e, "x/data/0": e["x/data/0"][:-1]}, "no whole number of elements"),
        (lambda e: {**e, "x/data/0": e["x/data/0"][:-4]}, "has a tensor larger than its storage"),
        (lambda e: {**e, "x/data.pkl": e["x/data.pkl"][:-9]}, "is damaged, or no model"),
        (
            lambda e: {**e, "x/data.pkl": e["x/data.pkl"].replace(b"FloatStorage", b"FloatStorbge")},
            "has a storage of unknown type 'torch.FloatStorbge'",
        ),
        (lambda e: {**e, "x/data.pkl": b"cm\nf\nQ."}, "refers to what is no storage"),
    ],
)
def test_damaged_archives(tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], message: str) -> None:
    entries = change(entries_of(save(tmp_path / "x.pt", {"a": torch.zeros(6)})))
    with pytest.raises(InputError, match=message):
        read_tensors(write_entries(tmp_path / "y.pt", entries))


def tensor_pickle(offset: str, shape: str, stride: str) -> bytes:
    """A state dict of one tensor, in a storage of 6 elements, by hand."""
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\ntQ"
    rest = f"I{offset}\n({shape}t({stride}tI00\n}}t".encode()
    return b"}Va\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"Rs."


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "message"),
    [
        ("0", "I1000000\nI1000000\n", "I0\nI0\n", "has a tensor larger than its storage"),
        ("0", "I2\nI3\n", "I3\n", "has a tensor larger than its storage"),
        ("1", "I6\n", "I1\n", "has a tensor that reaches out of its storage"),
        ("0", "I2\nI3\n", "I4\nI1\n", "has a tensor that reaches out of its storage"),
        ("-1", "I6\n", "I1\n", "has a tensor whose shape is none"),
        ("0", "I-6\n", "I1\n", "has a tensor whose shape is none"),
        ("0", "I6\n", "I-1\n", "has a tensor whose shape is none"),
        ("0", "F6\n", "I1\n", "has a tensor whose shape is none"),
        (
            "0",
            "I0\nI4611686018427387903\nI4611686018427387903\n",
            "I0\nI0\nI0\n",
            "is an archive that is damaged, or was cut off",
        ),
    ],
)
def test_tensors_that_are_none(tmp_path: Path, offset: str, shape: str, stride: str, message: str) -> None:
    entries = {"x/data.pkl": tensor_pickle(offset, shape, stride), "x/data/0": bytes(24)}
    with pytest.raises(InputError, match=message):
        read_tensors(write_entries(tmp_path / "x.pt", entries))


def test_the_tensor_by_hand(tmp_path: Path) -> None:
    """So that the test above fails for the reason that it names."""
    entries = {
        "x/data.pkl": tensor_pickle("1", "I2\nI2\n", "I2\nI1\n"),
        "x/data/0": torch.arange(6.0).numpy().tobytes(),
    }
    found = read_tensors(write_entries(tmp_path / "x.pt", entries)).tensors
    assert found["a"].tolist() == [[1, 2], [3, 4]]


def test_modules_without_end(tmp_path: Path) -> None:
    module = nn.Sequential()
    module._modules["a"] = module
    with pytest.raises(InputError, match=r"x\.pt: has more modules in one another than any model"):
        read_tensors(save(tmp_path / "x.pt", module))


def test_modules_that_double_at_each_level(tmp_path: Path) -> None:
    """Sixty modules, each with the next one twice, are 2**60 when walked."""
    module = nn.Sequential()
    for _ in range(60):
        module = nn.Sequential(module, module)
    with pytest.raises(InputError, match=r"x\.pt: has more modules in one another than any model"):
        read_tensors(save(tmp_path / "x.pt", module))


# -------------------------------------------------------------------------------------------------- safetensors


def test_safetensors(tmp_path: Path) -> None:
    """The scalar of two bytes in the middle leaves what follows it at an odd place."""
    tensors = {"c": TENSORS["c"], "a": TENSORS["a"], "empty": torch.zeros(0, 3), "b": TENSORS["b"]}
    assert_same(read_tensors(write_safetensors(tmp_path / "x.safetensors", tensors)).tensors, tensors)


def test_as_its_own_library_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    library.save_file(TENSORS, str(tmp_path / "x.safetensors"), metadata={"format": "pt"})
    assert_same(read_tensors(tmp_path / "x.safetensors").tensors, TENSORS)


def safetensors(header: Any, data: bytes = bytes(24)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: Any = (6,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file: it is empty$"),
        (b"text", "is not a safetensors file: it is a text file that starts with 'text'$"),
        (b"PK\x03\x04", "is an archive that is damaged, or was cut off$"),
        (b"\x01", "is not a safetensors file, or is truncated"),
        (b"\xff" * 8 + b"{}", "is not a safetensors file, or is truncated"),
        (safetensors({"a": entry(0, 24)})[:20], "is not a safetensors file, or is truncated"),
        (safetensors({}, b""), "holds no tensors"),
        (safetensors({"__metadata__": {}}, b""), "holds no tensors"),
        (safetensors(b"[]"), "its header is none"),
        (safetensors(b"{"), "its header is none"),
        (safetensors(b"[" * 100_000), "its header is none"),
        (safetensors(b"\xff\xfe"), "its header is none"),
        (safetensors({"a": 3}), "its header is none"),
        (safetensors({"a": entry(0, 24, dtype="F8_E4M3")}), "its header is none"),
        (safetensors({"a": entry(0, 24, (6.0,))}), "its header is none"),
        (safetensors({"a": entry(0, 24, (-6,))}), "its header is none"),
        (safetensors({"a": entry(0, 24, (True, 6))}), "its header is none"),
        (safetensors(b'{"a": ' + json.dumps(entry(0, 24)).encode() + b', "a": 1}'), "its header is none"),
        (safetensors({"a": entry(0, 24, (7,))}), "a is not where it should be, or not as long"),
        (safetensors({"a": entry(4, 24, (5,))}), "a is not where it should be, or not as long"),
        (safetensors({"a": entry(0, 16, (4,)), "b": entry(12, 24, (3,))}), "b is not where it should be"),
        (safetensors({"a": entry(0, 8, (2,)), "b": entry(12, 24, (3,))}), "b is not where it should be"),
        (safetensors({"a": entry(0, 28, (7,))}), "is truncated in a$"),
        (safetensors({"a": entry(0, 4 * 2**40, (2**40,))}), "is truncated in a$"),
        (safetensors({"a": entry(0, 20, (5,))}), "4 bytes belong to no tensor"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.safetensors: .*{message}"):
        read_tensors(tmp_path / "x.safetensors")
