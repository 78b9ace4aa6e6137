"""Choosing blocks: names, lists, patterns, rules, and the errors that help."""

from __future__ import annotations

import pytest

from spectraledge.errors import SettingError
from spectraledge.recording.select import block_label, select_blocks

BLOCKS = ["all", "layer.0.attn", "layer.0.mlp", "layer.1.attn", "odd[1]"]
INFO = {"layer.0.attn": {"kind": "attention"}, "layer.1.attn": {"kind": "attention"}}


def rule(name, info):
    return info.get("kind") == "attention"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", [0]),
        ("layer.1.attn", [3]),
        ("odd[1]", [4]),  # a name first, a pattern only if there is none
        ("layer.0.*", [1, 2]),
        ("*", [1, 2, 3, 4]),
        ("layer.?.attn", [1, 3]),
        (["layer.1.attn", "layer.0.mlp"], [3, 2]),
        (("all",), [0]),
        (rule, [1, 3]),
    ],
)
def test_choices(choice, expected):
    assert select_blocks(choice, BLOCKS, INFO) == expected


def test_the_only_block_can_be_matched():
    assert select_blocks("*", ["all"]) == [0]


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("layer.0.atn", "got 'layer.0.atn'. Nearest: layer.0.attn"),
        (["layer.0.mlp", "zzz"], "got 'zzz'. There are all, layer.0.attn"),
        ("head.*", "chose none of 4"),
        (lambda name, info: False, "chose none of 4"),
        ([], "chose none"),
        (["layer.0.mlp", "layer.0.mlp"], "every block once"),
        (["all", "layer.0.mlp"], "every block once"),
    ],
)
def test_what_cannot_be_chosen(choice, sentence):
    with pytest.raises(SettingError, match=sentence.replace("[", r"\[")):
        select_blocks(choice, BLOCKS, INFO)


def test_labels():
    assert block_label("layer.0*") == "layer.0*"
    assert block_label(["a", "b"]) == "a+b"
    assert block_label(rule) == "rule"
