"""Partitions: disjoint, complete, and named as documented."""

from __future__ import annotations

import pytest
import torch
from stream_reference import small_transformer

from spectraledge.errors import SettingError
from spectraledge.stream.blocks import SCHEMES, make_blocks
from spectraledge.stream.labels import canonical_name, label
from spectraledge.stream.parameters import head_counts, real, trainable

SHAPES = {name: tuple(p.shape) for name, p in small_transformer().named_parameters()}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_covers_every_entry_once(scheme: str) -> None:
    blocks = make_blocks(SHAPES, scheme, heads=4)
    counts = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for atoms in blocks.atoms:
        for atom in atoms:
            atom.of(counts[atom.name]).add_(1)
    assert all(bool((c == 1).all()) for c in counts.values())
    assert sum(i["n_parameters"] for i in blocks.info()) == blocks.n_parameters  # type: ignore[misc]


def test_names_of_the_schemes() -> None:
    assert make_blocks(SHAPES, "layer").names == ("embed", "encoder.layers.0", "encoder.layers.1", "norm", "head")
    assert set(make_blocks(SHAPES, "kind").names) == {"embedding", "attention", "mlp", "norm", "head"}
    projections = make_blocks(SHAPES, "projection")
    assert "encoder.layers.1.W_Q" in projections.names
    sizes = {i["name"]: i["n_parameters"] for i in projections.info()}
    assert all(sizes[f"encoder.layers.0.W_{x}"] == 16 * 16 for x in "QKVO")
    heads = make_blocks(SHAPES, "head", heads=4)
    # a head's rows of W_Q, W_K, W_V with their biases, and its columns of W_O
    assert {i["name"]: i["n_parameters"] for i in heads.info()}["encoder.layers.0.head3"] == 4 * (4 * 16) + 3 * 4


def test_heads_are_read_off_the_modules() -> None:
    assert head_counts(small_transformer()) == {"encoder.layers.0": 4, "encoder.layers.1": 4}


@pytest.mark.parametrize(
    ("name", "shape", "kind", "projection"),
    [
        ("model.layers.3.self_attn.q_proj.weight", (8, 8), "attention", "q"),
        ("model.layers.3.self_attn.o_proj.weight", (8, 8), "attention", "o"),
        ("model.layers.3.mlp.up_proj.weight", (8, 8), "mlp", None),
        ("model.layers.3.input_layernorm.weight", (8,), "norm", None),
        ("model.embed_tokens.weight", (8, 8), "embedding", None),
        ("lm_head.weight", (8, 8), "head", None),
        ("transformer.h.0.attn.c_attn.weight", (8, 24), "attention", "qkv"),
        ("transformer.h.0.attn.c_proj.weight", (8, 8), "attention", "o"),
        ("transformer.h.0.ln_1.weight", (8,), "norm", None),
        ("transformer.wte.weight", (8, 8), "embedding", None),
        ("gpt_neox.layers.0.attention.query_key_value.weight", (24, 8), "attention", None),
        ("gpt_neox.layers.0.attention.dense.weight", (8, 8), "attention", "o"),
        ("gpt_neox.layers.0.mlp.dense_h_to_4h.weight", (8, 8), "mlp", None),
        ("conv1.weight", (8, 3, 3, 3), "conv", None),
        ("bert.encoder.layer.0.attention.self.query.weight", (8, 8), "attention", "q"),
    ],
)
def test_labels_of_common_models(name: str, shape: tuple[int, ...], kind: str, projection: str | None) -> None:
    found = label(name, shape)
    assert (found.kind, found.projection) == (kind, projection)


def test_wrappers_leave_no_trace_in_names() -> None:
    assert canonical_name("module._orig_mod.layers.0._checkpoint_wrapped_module.w") == "layers.0.w"


def test_regex_and_callable() -> None:
    blocks = make_blocks(SHAPES, {"attention": r"self_attn", "head": r"^head\."})
    assert set(blocks.names) == {"attention", "head", "rest"}
    blocks = make_blocks(SHAPES, lambda name, shape: "matrices" if len(shape) > 1 else None)
    assert set(blocks.names) == {"matrices", "rest"}


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("layers", "blocks must be one of all, layer"),
        ({"a": "embed", "b": "emb"}, "embed.weight is claimed by a and b"),
        ({"a": "nothing"}, "matches no parameter"),
        ({"a": "("}, "regular expressions"),
        (3, "got int"),
        (lambda name, shape: "all", 'no block may be called "all"'),
        (lambda name, shape: 3, "must be a string"),
    ],
)
def test_refusals(scheme: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_blocks(SHAPES, scheme)  # type: ignore[arg-type]


def test_heads_that_cannot_be_told() -> None:
    with pytest.raises(SettingError, match="found no attention projections to split"):
        make_blocks({"a.weight": (4, 4)}, "head")


class TestTrainable:
    def test_tied_frozen_buffers_and_empty(self) -> None:
        class Tied(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = torch.nn.Embedding(5, 4)
                self.head = torch.nn.Linear(4, 5, bias=False)
                self.head.weight = self.embed.weight
                self.twin = torch.nn.Parameter(self.embed.weight.data)  # another Parameter over the same storage
                self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
                self.empty = torch.nn.Parameter(torch.ones(0))
                self.phase = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
                self.register_buffer("mask", torch.ones(7))

        found = trainable(Tied())
        assert len(found) == 2  # one name for the shared storage, and the complex one
        assert "phase" in found
        assert make_blocks({n: tuple(real(t).shape) for n, t in found.items()}).n_parameters == 20 + 2 * 3

    @pytest.mark.parametrize(
        ("model", "params", "message"),
        [
            (torch.nn.ReLU(), None, "ReLU has no parameters"),
            (torch.nn.Linear(2, 2).requires_grad_(False), None, "all 2 parameters of Linear are frozen"),
            (torch.nn.Linear(2, 2), "nothing", "leaves none of the 2 trainable parameters"),
            (torch.nn.Linear(2, 2), "(", "regular expression"),
            (torch.nn.LazyLinear(2), None, "holds no data yet"),
            (torch.nn.Linear(2, 2, device="meta"), None, "holds no data yet"),
        ],
    )
    def test_refusals(self, model: torch.nn.Module, params: str | None, message: str) -> None:
        with pytest.raises(SettingError, match=message):
            trainable(model, params)
