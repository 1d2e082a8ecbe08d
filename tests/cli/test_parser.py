"""``key=value``, other tools' names of keys, and what is wrong with a command line."""

from __future__ import annotations

import argparse
import logging

import pytest

from detect.cli import data, export, predict, train, val
from detect.cli.parser import ToolParser
from detect.errors import InputError


def parsed(command, *words: str) -> argparse.Namespace:
    parser = ToolParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"model": None, "set": []}),
        (("model=yolov5n", "data=bccd", "epochs=3"), {"model": "yolov5n", "data": "bccd", "epochs": 3}),
        (("image_size=64", "batch-size=2"), {"image_size": 64, "batch_size": 2}),
        (("optimizer.lr=0.1", "--epochs", "3"), {"set": ["optimizer.lr=0.1"], "epochs": 3}),
        (("--set", "ema.decay=0", "epochs=4"), {"set": ["ema.decay=0", "epochs=4"], "epochs": None}),
        (("epochs=4", "--set", "ema.decay=0"), {"set": ["ema.decay=0"], "epochs": 4}),
        (("--data", "a=b", "workers=0"), {"data": "a=b", "workers": 0}),
        (("--data=a=b",), {"data": "a=b"}),
        (("data=a=b c",), {"data": "a=b c"}),
        (("--resume", "out=a"), {"resume": True, "out": "a"}),
        (("--resume", "anyway", "out=a"), {"resume": "anyway", "out": "a"}),
        (("--image_size", "64"), {"image_size": 64}),
        (("strict=true",), {"strict": True}),
        (("strict=False",), {"strict": False}),
        (("imgsz=64", "batch=2"), {"image_size": 64, "batch_size": 2}),
        (("--imgsz", "64", "--batch=2"), {"image_size": 64, "batch_size": 2}),
        (("lr0=0.1", "--patience", "9"), {"set": ["optimizer.lr=0.1", "evaluation.patience=9"]}),
        (("name=mine",), {"out": "runs/mine"}),
        (("--project", "a/b", "--name", "mine"), {"out": "a/b/mine"}),
        (("new.key=1",), {"set": ["new.key=1"]}),  # the recipe knows its keys, and refuses the others
    ],
)
def test_training(words, expected):
    args = vars(parsed(train, *words))
    assert {key: args[key] for key in expected} == expected


def test_other_commands():
    args = parsed(predict, "model=a.pt", "source=b.jpg", "imgsz=64", "conf=0.5", "save_txt=True", "name=c")
    assert (args.weights.name, args.source, args.image_size, args.conf, args.save_txt) == (
        *("a.pt", ["b.jpg"], 64, 0.5, True),
    )
    assert args.out.as_posix() == "runs/c"
    assert parsed(predict, "--weights", "a", "--source", "b=1.jpg", "c=2.jpg").source == ["b=1.jpg", "c=2.jpg"]
    assert parsed(export, "weights=a", "dynamic=false").dynamic is False
    assert parsed(val, "weights=a", "data=b", "json=1").json is True
    assert parsed(data, "check", "data=b", "--json").json.name == "-"
    assert parsed(data, "stats", "data=b", "imgsz=64", "--json", "c.json").json.name == "c.json"


def test_habits_are_told_once(caplog):
    with caplog.at_level(logging.INFO, "detect"):
        parsed(train, "imgsz=64", "--lr0", "0.1", "name=a", "epochs=2")
    assert caplog.messages == [
        "aliases: imgsz is --image-size, --lr0 is --set optimizer.lr, name is part of --out PROJECT/NAME"
    ]
    caplog.clear()
    parsed(train, "image_size=64", "optimizer.lr=0.1")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (train, ("--epoch", "3"), "unrecognized arguments: --epoch 3; did you mean '--epochs'?; --help lists"),
        (train, ("--qwzx",), "unrecognized arguments: --qwzx; --help lists what there is"),
        (train, ("epochs=none",), "argument --epochs: must be a whole number above 0, found 'none'; --help lists"),
        (train, ("strict=maybe",), "strict=maybe: must be true or false"),
        (train, ("project=a",), "project=a: needs name=NAME as well, or --out FOLDER in place of both"),
        (train, ("epochs=1", "--epochs", "3"), "epochs=1: --epochs is there as well; give one of the two"),
        (train, ("imgsz=64", "--image-size=32"), "image_size=64: --image-size is there as well"),
        (train, ("lr0=1", "optimizer.lr=2"), "optimizer.lr=2: optimizer.lr is given twice, the other time 1"),
        (train, ("yolov5n",), "unrecognized arguments: yolov5n; --help lists what there is"),
        (predict, ("weights=a", "source=b", "cnf=1"), "cnf=1: unknown key; did you mean 'conf'?; --help lists"),
        (data, ("check", "data=a", "worker=1"), "worker=1: unknown key; did you mean 'workers'?; --help lists"),
        (data, ("check", "--data", "a", "--quik"), "unrecognized arguments: --quik; did you mean '--quick'?"),
    ],
)
def test_what_is_wrong(command, words, message):
    with pytest.raises(InputError) as raised:
        parsed(command, *words)
    assert message in str(raised.value)


def test_a_recipe_key_beside_its_flag():
    with pytest.raises(InputError, match="--set image_size=64: --image-size is there as well; give one of the two"):
        train.request_from_args(parsed(train, "--set", "image_size=64", "--image-size", "32"))
