"""Checkpoints analyzed offline against the same run monitored live, and against plain NumPy."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

import spectraledge as se
from spectraledge.checkpoints import rows as rows_module
from spectraledge.errors import DataError, OutputError, SettingError
from spectraledge.stream.ring import UpdateRing

# Both sides subtract in float32 and add float64 products; only the order of the sum over a block's tensors differs,
# of at most a few thousand terms: sqrt(5000) * 2^-53 < 1e-14 of ||delta_a|| ||delta_b||. The promise is 1e-12.
RELATIVE = 1e-12
EVERY, N_UPDATES = 3, 9


class Small(nn.Module):
    """Embedding tied to the head, batch norm with buffers, attention with fused projections."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.layers = nn.ModuleList([layer, copy.deepcopy(layer)])
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 11)
        self.head.weight = self.embed.weight
        self.register_buffer("inv_freq", torch.arange(4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x.mean(dim=1)))


def train(
    folder: Path, *, dtype: torch.dtype = torch.float32, save_dtype: torch.dtype | None = None, blocks: str = "layer"
) -> se.Recording:
    """A monitored run of a few steps that saves a checkpoint at every snapshot; its live recording."""
    torch.manual_seed(0)
    model = Small().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    folder.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        state = {name: t.detach().clone() for name, t in model.state_dict().items()}
        if save_dtype is not None:
            state = {name: t.to(save_dtype) if t.is_floating_point() else t for name, t in state.items()}
        save_file(state, folder / f"step-{step}.safetensors")

    with se.attach(model, optimizer, window=4, every=EVERY, blocks=blocks, on_error="raise", heads=2) as monitor:
        save(0)
        for step in range(1, EVERY * N_UPDATES + 1):
            x = torch.randint(0, 11, (16, 5))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), x[:, 0]).backward()
            optimizer.step()
            if step % EVERY == 0:
                save(step)
        return monitor.recording


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, se.Recording]:
    folder = tmp_path_factory.mktemp("run") / "ckpts"
    return folder, train(folder)


def assert_same_products(offline: se.Recording, live: se.Recording) -> None:
    assert set(offline.blocks) == set(live.blocks)
    order = [offline.blocks.index(name) for name in live.blocks]
    np.testing.assert_array_equal(offline.steps, live.steps)
    np.testing.assert_array_equal(offline.n_steps, live.n_steps)
    norm = np.sqrt(live.products[..., 0])  # (T, B)
    theta_norm = np.sqrt(live.theta_norm2)
    for lag in range(live.lags + 1):
        a, b = offline.products[lag:, order, lag], live.products[lag:, :, lag]
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        assert np.all(np.abs(a - b) <= RELATIVE * norm[lag:] * norm[: len(norm) - lag])
    assert np.all(np.abs(offline.theta_dot[:, order] - live.theta_dot) <= RELATIVE * norm * theta_norm)
    assert np.all(np.abs(offline.theta_norm2[:, order] - live.theta_norm2) <= RELATIVE * live.theta_norm2)
    np.testing.assert_array_equal(offline.unchanged[:, order], live.unchanged)


def test_offline_equals_live(run: tuple[Path, se.Recording]) -> None:
    folder, live = run
    offline = se.analyze(folder, window=4)
    assert_same_products(offline, live)
    assert offline.flags == live.flags
    assert offline.update_eps == live.update_eps
    for name in live.block_info:
        assert offline.block_info[name]["n_parameters"] == live.block_info[name]["n_parameters"]
    segment = offline.meta["segments"][0]
    assert segment["every"] == EVERY
    assert segment["n_parameters"] == live.meta["segments"][0]["n_parameters"]
    assert offline.closed


@pytest.mark.parametrize("blocks", ["tensor", "projection", "head", "kind", "all"])
def test_offline_equals_live_for_every_scheme(tmp_path: Path, blocks: str) -> None:
    live = train(tmp_path / "ckpts", blocks=blocks)
    offline = se.analyze(tmp_path / "ckpts", window=4, blocks=blocks, heads=2)
    assert_same_products(offline, live)


def test_offline_equals_live_in_float64(tmp_path: Path) -> None:
    live = train(tmp_path / "ckpts", dtype=torch.float64)
    offline = se.analyze(tmp_path / "ckpts", window=4)
    assert_same_products(offline, live)
    assert offline.update_eps == 2.0**-53
    assert offline.meta["dtype"] == "float64"


def test_buffers_are_left_out_and_tied_weights_counted_once(run: tuple[Path, se.Recording]) -> None:
    offline = se.analyze(run[0], window=4)
    assert offline.meta["tied"] == {"embed.weight": ["head.weight"]}
    assert set(offline.meta["left_out"]) == {
        "inv_freq",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }


@pytest.mark.parametrize("blocks", ["layer", "head"])
def test_little_memory_gives_the_same_in_small_tiles(
    run: tuple[Path, se.Recording], monkeypatch: pytest.MonkeyPatch, blocks: str
) -> None:
    folder, _ = run
    whole = se.analyze(folder, window=4, blocks=blocks, heads=2)
    sizes = []

    class Watched(UpdateRing):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            sizes.append(self.nbytes)

    monkeypatch.setattr(rows_module, "UpdateRing", Watched)
    limit = 4000  # bytes: a row of the widest tensor, 24 entries of 9 float32 copies, takes 864
    calls: list[tuple[int, int]] = []
    parts = se.analyze(
        folder,
        window=4,
        blocks=blocks,
        heads=2,
        memory_bytes=limit,
        progress=lambda done, total, name: calls.append((done, total)),
    )
    assert max(sizes) <= limit
    n_tiles = calls[-1][1] // (N_UPDATES + 1)
    assert n_tiles > 10
    assert len(sizes) <= n_tiles  # neighbouring tiles of one layout share a ring
    assert [done for done, _ in calls] == list(range(1, n_tiles * (N_UPDATES + 1) + 1))
    assert_same_products(parts, whole)
    assert [b["name"] for b in parts.meta["segments"][0]["block_info"]] == list(whole.block_info)


def test_memory_for_less_than_a_row_is_refused(run: tuple[Path, se.Recording]) -> None:
    with pytest.raises(SettingError, match=r"memory_bytes must hold 8 copies of one row of a tensor; a row of "):
        se.analyze(run[0], window=4, memory_bytes=100)


def test_a_ring_beyond_a_quarter_of_the_free_memory_is_refused(
    run: tuple[Path, se.Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectraledge.checkpoints.plan.free_memory", lambda device: 40_000)
    with pytest.raises(SettingError, match=r"quarter of the free memory; .* Set memory_bytes=10000 or less"):
        se.analyze(run[0], window=4)
    assert se.analyze(run[0], window=4, memory_bytes=10_000).n_updates == N_UPDATES


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    folder = tmp_path / "ckpts"
    train(folder, save_dtype=torch.bfloat16)
    offline = se.analyze(folder, window=4, blocks="all")
    assert offline.meta["dtype"] == "bfloat16"
    assert offline.meta["segments"][0]["parameter_dtypes"] == ["bfloat16"]
    assert offline.meta["segments"][0]["update_dtype"] == "float32"
    assert offline.update_eps > 2.0**-9  # the rounding of the weights themselves, against small updates
    skip = {*offline.meta["left_out"], "head.weight"}
    thetas = np.stack(
        [
            np.concatenate([t.float().numpy().ravel() for name, t in sorted(state.items()) if name not in skip])
            for state in (load_file(folder / f"step-{EVERY * i}.safetensors") for i in range(N_UPDATES + 1))
        ]
    )
    deltas = np.diff(thetas, axis=0)  # float32, as the ring forms them
    np.testing.assert_array_equal(offline.unchanged[:, 0], (deltas == 0).sum(axis=1))
    assert offline.unchanged[:, 0].min() > 0  # a rounding to 8 bits hides some updates
    expected = (deltas.astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(offline.products[:, 0, 0], expected, rtol=RELATIVE)


def test_a_corrupt_checkpoint_is_a_seam_and_an_event(tmp_path: Path) -> None:
    folder = tmp_path / "ckpts"
    whole = train(folder)
    bad = folder / "step-12.safetensors"
    bad.write_bytes(bad.read_bytes()[:-100])
    offline = se.analyze(folder, window=4, out=tmp_path / "out")
    # the updates into and out of step 12 are gone, the first one after it is the seam
    np.testing.assert_array_equal(offline.steps, [3, 6, 9, 18, 21, 24, 27])
    assert np.all(offline.n_steps == EVERY)
    assert offline.flags == [[], [], [], ["seam"], [], [], []]
    np.testing.assert_array_equal(offline.seams, [3])
    assert np.all(np.isnan(offline.products[3, :, 1:]))
    (event,) = offline.events
    assert (event.step, event.kind, event.detector) == (12, "skipped", "checkpoints")
    assert "step-12.safetensors" in event.detail
    assert "truncated" in event.detail
    assert offline.meta["skipped"][0]["file"] == "step-12.safetensors"
    for t, live_t in enumerate([0, 1, 2, 5, 6, 7, 8]):
        np.testing.assert_allclose(offline.products[t, 0, 0], whole.products[live_t, 0, 0], rtol=RELATIVE)
    assert se.load(tmp_path / "out") == offline
    with pytest.raises(DataError, match=r"step-12\.safetensors must be a whole safetensors checkpoint; it is trunc"):
        se.analyze(folder, window=4, strict=True)


@pytest.mark.parametrize(("step", "first"), [(0, 6), (27, 3)])
def test_a_bad_end_is_no_seam(tmp_path: Path, step: int, first: int) -> None:
    folder = tmp_path / "ckpts"
    train(folder)
    (folder / f"step-{step}.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 90)
    offline = se.analyze(folder, window=4)
    assert offline.n_updates == N_UPDATES - 1
    assert offline.steps[0] == first
    assert len(offline.seams) == 0
    assert not any(offline.flags)
    assert "git-lfs pointer" in offline.events[0].detail


def test_a_checkpoint_that_changes_while_it_is_read_is_struck_out(tmp_path: Path) -> None:
    folder = tmp_path / "ckpts"
    train(folder)
    target = folder / "step-15.safetensors"
    whole = se.analyze(folder, window=4)

    def overwrite(done: int, total: int, name: str) -> None:
        if done == 14:  # in the second tile, before its turn: the first has added to the rows
            target.write_bytes(target.read_bytes()[:-4])

    offline = se.analyze(folder, window=4, memory_bytes=60_000, jobs=1, progress=overwrite)
    np.testing.assert_array_equal(offline.steps, [3, 6, 9, 12, 21, 24, 27])
    np.testing.assert_allclose(offline.products[4, :, 0], whole.products[6, :, 0], rtol=RELATIVE)
    assert "changed while it was read" in offline.events[0].detail
    with pytest.raises(DataError, match=r"step-15\.safetensors must be a whole .* truncated"):
        se.analyze(folder, window=4, strict=True)


def test_a_checkpoint_that_is_replaced_is_read_as_it_was_checked(tmp_path: Path) -> None:
    folder = tmp_path / "ckpts"
    train(folder)
    whole = se.analyze(folder, window=4)

    def replace(done: int, total: int, name: str) -> None:
        if done == 14:
            (folder / "step-12.safetensors").rename(folder / "gone")
            (folder / "step-0.safetensors").rename(folder / "step-12.safetensors")

    assert_same_products(se.analyze(folder, window=4, memory_bytes=60_000, jobs=1, progress=replace), whole)


def test_resized_and_renamed_tensors_begin_segments(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)

    def save(step: int, **shapes: tuple[int, ...]) -> None:
        state = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        save_file(state, tmp_path / f"step{step}.safetensors")

    for step in (0, 10, 20):
        save(step, embed=(5, 3), body=(3, 3))
    for step in (30, 40, 50):
        save(step, embed=(7, 3), body=(3, 3))
    for step in (60, 70):
        save(step, embed=(7, 3), core=(3, 3))
    r = se.analyze(tmp_path, window=2)
    np.testing.assert_array_equal(r.steps, [10, 20, 40, 50, 70])
    np.testing.assert_array_equal(r.segment, [0, 0, 1, 1, 2])
    reasons = [segment["reason"] for segment in r.meta["segments"]]
    assert reasons == [
        "start",
        "resized: embed.weight (5, 3) -> (7, 3)",
        "new: core.weight; gone: body.weight",
    ]
    assert [segment["step"] for segment in r.meta["segments"]] == [0, 30, 60]
    assert np.isnan(r.products[2, 0, 1])
    assert np.isfinite(r.products[3, 0, 1])


def test_uneven_strides_are_told(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    for step in (1, 100, 200, 300, 500, 600):
        save_file({"w": torch.randn(6, generator=generator)}, tmp_path / f"checkpoint-{step}.safetensors")
    r = se.analyze(tmp_path, window=2)
    np.testing.assert_array_equal(r.n_steps, [99, 100, 100, 200, 100])
    assert r.flags == [["uneven"], [], [], ["uneven"], []]
    assert r.meta["every"] == r.meta["segments"][0]["every"] == 100
    assert np.isfinite(r.products[1:, 0, 1]).all()


def test_nan_inside_is_flagged_as_live(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    for step in range(6):
        state = {"a.w": torch.randn(4, generator=generator), "b.w": torch.randn(4, generator=generator)}
        if step == 3:
            state["a.w"][:2] = torch.tensor([float("nan"), float("inf")])
        save_file(state, tmp_path / f"step-{step}.safetensors")
    r = se.analyze(tmp_path, window=2)
    a, b = r.blocks.index("a"), r.blocks.index("b")
    assert r.flags == [[], [], ["nonfinite"], ["nonfinite"], []]
    np.testing.assert_array_equal(r.nonfinite[:, a], [0, 0, 2, 0, 0])
    np.testing.assert_array_equal(np.isnan(r.products[:, a, 0]), [False, False, True, True, False])
    assert np.isfinite(r.products[:, b, 0]).all()
    (event,) = r.events
    assert (event.step, event.block, event.kind, event.value) == (3, "a", "nonfinite", 2.0)


def test_sharded_folders_with_an_index(run: tuple[Path, se.Recording], tmp_path: Path) -> None:
    import json

    folder, live = run
    for i in range(N_UPDATES + 1):
        state = load_file(folder / f"step-{EVERY * i}.safetensors")
        target = tmp_path / f"checkpoint-{EVERY * i}"
        target.mkdir()
        names = sorted(state)
        halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for shard, members in halves.items():
            save_file({name: state[name] for name in members}, target / shard)
        index = {"metadata": {}, "weight_map": {name: s for s, members in halves.items() for name in members}}
        (target / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_products(se.analyze(tmp_path, window=4), live)


def test_tied_weights_that_the_writer_dropped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Small()
    for step in (0, 1, 2):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        (tmp_path / str(step)).mkdir()
        save_model(model, str(tmp_path / str(step) / "model.safetensors"))
    r = se.analyze(tmp_path, window=2)
    assert r.meta["tied"] == {}
    n = sum(p.numel() for p in model.parameters())
    assert r.meta["segments"][0]["n_parameters"] == n


def test_what_is_merely_equal_is_not_tied(tmp_path: Path) -> None:
    start, generator = torch.randn(8, generator=torch.Generator().manual_seed(4)), torch.Generator().manual_seed(5)
    for step in range(3):
        state = {"a.w": start.clone(), "b.w": start.clone(), "gain": torch.ones(8), "other_gain": torch.ones(8)}
        if step:
            state["a.w"] += torch.randn(8, generator=generator)
            state["b.w"] += torch.randn(8, generator=generator)
        save_file(state, tmp_path / f"step-{step}.safetensors")
    r = se.analyze(tmp_path, window=2, blocks="tensor")
    assert r.meta["tied"] == {}
    assert set(r.blocks) == {"all", "a.w", "b.w", "gain", "other_gain"}
    np.testing.assert_array_equal(r.unchanged[:, r.blocks.index("gain")], [8, 8])


def test_params_choose_by_name_or_by_shape(run: tuple[Path, se.Recording]) -> None:
    by_name = se.analyze(run[0], window=4, params=r"^layers\.1\.")
    assert by_name.blocks == ["all", "layers.1"]
    by_shape = se.analyze(run[0], window=4, blocks="tensor", params=lambda name, p: p.dim() == 2 and p.shape[0] == 11)
    assert by_shape.blocks == ["all", "embed.weight"]
    with pytest.raises(SettingError, match=r"params must leave at least one tensor; 'nothing' leaves none of 29"):
        se.analyze(run[0], window=4, params="nothing")


def test_complex_weights_are_pairs_of_real_ones(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(6)
    states = [torch.randn(5, 3, dtype=torch.complex64, generator=generator) for _ in range(4)]
    for step, state in enumerate(states):
        save_file({"w": state}, tmp_path / f"step-{step}.safetensors")
    for limit in (2**20, 500):
        r = se.analyze(tmp_path, window=2, memory_bytes=limit)
        expected = [float((b - a).to(torch.complex128).abs().square().sum()) for a, b in pairwise(states)]
        np.testing.assert_allclose(r.products[:, 0, 0], expected, rtol=RELATIVE)


def test_two_checkpoints_must_be_readable(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "step-1.safetensors")
    (tmp_path / "step-2.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"at least 2 checkpoints .* holds 2, of which 1 can be read\. .*cut short"):
        se.analyze(tmp_path, window=2)


def test_checkpoints_without_a_neighbour_form_no_update(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_file({"w": torch.arange(3.0) * step}, tmp_path / f"step-{step}.safetensors")
    (tmp_path / "step-2.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"neighbours of equal structure; .* has none\. .*step-2\.safetensors"):
        se.analyze(tmp_path, window=2)
    r = se.analyze([tmp_path / "step-1.safetensors", tmp_path / "step-3.safetensors"], window=2)
    np.testing.assert_array_equal(r.n_steps, [2])


def test_an_existing_recording_is_refused_before_anything_is_read(
    run: tuple[Path, se.Recording], tmp_path: Path
) -> None:
    first = se.analyze(run[0], window=4, out=tmp_path)
    read: list[str] = []
    with pytest.raises(OutputError, match=r"must not hold a recording yet; .* overwrite=True"):
        se.analyze(run[0], window=4, out=tmp_path, progress=lambda done, total, name: read.append(name))
    assert not read
    assert se.load(tmp_path) == first
    again = se.analyze(run[0], window=3, out=tmp_path, overwrite=True)
    assert again.lags == 5


def test_settings_that_cannot_be(run: tuple[Path, se.Recording]) -> None:
    for kwargs, words in (
        ({"window": 1}, "window must be at least 2; got 1"),
        ({"window": 4, "lags": 2}, "lags must be at least window - 1 = 3; got 2"),
        ({"memory_bytes": 0}, "memory_bytes must be at least 1; got 0"),
        ({"blocks": "layers"}, "blocks must be one of"),
        ({"params": "("}, "params must be a regular expression"),
        ({"params": 3}, "params must be a regular expression or a predicate; got int"),
    ):
        with pytest.raises(SettingError, match=words):
            se.analyze(run[0], **kwargs)  # type: ignore[arg-type]


def test_the_global_generator_and_the_files_stay_as_they_are(run: tuple[Path, se.Recording]) -> None:
    before = torch.get_rng_state(), {p.name: p.read_bytes() for p in run[0].iterdir()}
    se.analyze(run[0], window=4)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == {p.name: p.read_bytes() for p in run[0].iterdir()}


def test_every_thins_the_series(run: tuple[Path, se.Recording]) -> None:
    folder, live = run
    thin = se.analyze(folder, window=4, every=2 * EVERY)
    assert thin.n_steps.tolist() == [2 * EVERY] * (live.n_updates // 2)
    assert not any(thin.flags)
    # a row of two live updates is the same update: equal up to the rounding of the float32 differences
    _, coarse = live.gram(window=3, stride=2)
    _, gram = thin.gram(window=3)
    norms = np.sqrt(np.diagonal(coarse, axis1=1, axis2=2))
    assert np.max(np.abs(gram - coarse) / (norms[:, :, None] * norms[:, None, :])) < 1e-5
    with pytest.raises(SettingError, match="every must be at least 1; got 0"):
        se.analyze(folder, every=0)
    with pytest.raises(DataError, match="must leave at least 2"):
        se.analyze(folder, every=10**6)
