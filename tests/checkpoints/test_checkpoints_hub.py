"""Revisions on the hub, against a cache laid out like the hub's and a client that fills it: no network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints_series import save_walk, walk
from safetensors.torch import save

import spectraledge as se
from spectraledge.checkpoints import groups
from spectraledge.checkpoints.downloads import Fetched
from spectraledge.checkpoints.hub import find_revisions, is_hub_id, weight_files
from spectraledge.errors import DataError

hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")

REPO = "some-lab/tiny-1m"


class Hub:
    """A repository whose revisions hold files; downloads go to a cache as the library lays it out."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.files: dict[str, dict[str, bytes]] = {}
        self.downloads: list[str] = []
        self.most_blobs = 0

    def commit(self, revision: str) -> str:
        names = [f"{name}:{hashlib.sha1(data).hexdigest()}" for name, data in self.files[revision].items()]
        return hashlib.sha1("".join([revision, *names]).encode()).hexdigest()

    @property
    def storage(self) -> Path:
        return self.cache / f"models--{REPO.replace('/', '--')}"

    def blobs(self) -> list[Path]:
        return sorted(self.storage.glob("blobs/*"))

    def list_repo_refs(self, repo: str) -> SimpleNamespace:
        if repo != REPO:
            raise errors.RepositoryNotFoundError("404", response=_response(404))
        refs = [SimpleNamespace(name=name, target_commit=self.commit(name)) for name in self.files]
        return SimpleNamespace(branches=refs, tags=[], converts=[])

    def list_repo_tree(self, repo: str, revision: str) -> list[SimpleNamespace]:
        (name,) = (name for name in self.files if self.commit(name) == revision)
        folder = SimpleNamespace(path="logs")
        return [folder, *(SimpleNamespace(path=n, size=len(data)) for n, data in self.files[name].items())]

    def snapshot_download(self, repo: str, revision: str, allow_patterns: list[str]) -> str:
        folder = self.storage / "snapshots" / self.commit(revision)
        for path in (folder, self.storage / "blobs", self.storage / "refs"):
            path.mkdir(parents=True, exist_ok=True)
        (self.storage / "refs" / revision).write_text(self.commit(revision))
        for name in allow_patterns:
            data = self.files[revision][name]
            blob = self.storage / "blobs" / hashlib.sha256(data).hexdigest()
            if not blob.exists():
                self.downloads.append(f"{revision}/{name}")
                blob.write_bytes(data)
            if not (folder / name).exists():
                os.symlink(os.path.relpath(blob, folder), folder / name)
        self.most_blobs = max(self.most_blobs, len(self.blobs()))
        return str(folder)


def _response(status: int) -> object:
    import importlib

    for client in ("httpx2", "httpx"):
        try:
            httpx = importlib.import_module(client)
        except ImportError:
            continue
        return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/x"))
    pytest.skip("neither httpx nor httpx2 is there")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "cache")
    for i, state in enumerate(walk(8)):
        fake.files[f"step{10 * i}"] = {
            "config.json": b"{}",
            "model.safetensors": save(state),
            "pytorch_model.bin": b"never looked at",
        }
    fake.files = dict(sorted(fake.files.items()))  # step0, step10, ... as text: the hub keeps no order
    fake.files["main"] = fake.files["step70"]
    monkeypatch.setattr(hub, "HfApi", lambda: fake)
    monkeypatch.setattr(hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(fake.cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return fake


@pytest.fixture
def local(tmp_path: Path) -> se.Recording:
    return se.analyze(save_walk(tmp_path / "local"), window=4)


def assert_same_rows(a: se.Recording, b: se.Recording) -> None:
    for recording in (a, b):
        recording.meta.pop("source"), recording.meta.pop("ignored_files")
    assert a == b


def test_names_of_repositories_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub_id("EleutherAI/pythia-14m@step*")
    for source in ("runs/x", "a/b/c@step*", "EleutherAI/pythia-14m", "x@step*", ["a/b@c"], tmp_path):
        assert not is_hub_id(source)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x@step*").mkdir(parents=True)
    assert not is_hub_id("runs/x@step*")


def test_the_series_is_that_of_the_files(repo: Hub, local: se.Recording) -> None:
    said: list[str] = []
    there = se.analyze(f"{REPO}@step*", window=4, say=said.append)
    assert_same_rows(there, local)
    assert "8 revisions of some-lab/tiny-1m hold" in said[0]
    assert repo.downloads == [f"step{10 * i}/model.safetensors" for i in range(8)]


def test_what_is_in_the_cache_is_not_downloaded_again(repo: Hub) -> None:
    first = se.analyze(f"{REPO}@step*", window=4)
    repo.downloads.clear()
    assert se.analyze(f"{REPO}@step*", window=4) == first
    assert repo.downloads == []


def test_the_table_comes_before_any_download(repo: Hub) -> None:
    series = find_revisions(f"{REPO}@step*")
    table = series.table()
    assert [row["step"] for row in table] == [10 * i for i in range(8)]
    assert [row["file"] for row in table] == [f"step{10 * i}" for i in range(8)]
    assert {row["format"] for row in table} == {"safetensors"}
    assert series.n_bytes == sum(row["bytes"] for row in table)
    assert repo.downloads == []


def test_patterns_and_every(repo: Hub) -> None:
    assert [r.step for r in find_revisions(f"{REPO}@step[0-3]*").revisions] == [0, 10, 20, 30]
    assert se.analyze(f"{REPO}@step*", window=2, every=20).n_steps.tolist() == [20, 20, 20]
    assert repo.downloads == [f"step{i}/model.safetensors" for i in (0, 20, 40, 60)]


def test_main_is_no_member(repo: Hub) -> None:
    series = find_revisions(f"{REPO}@*")
    assert len(series.revisions) == 8
    assert series.ignored == ("main",)


@pytest.mark.parametrize("memory_bytes", [2**31, 20_000])
def test_dropping_as_it_goes_changes_no_bit(
    repo: Hub, local: se.Recording, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, memory_bytes: int
) -> None:
    monkeypatch.setattr(groups, "TILE_BYTES", 6000)
    monkeypatch.setattr(groups, "TILES_IN_PART", 3)
    plain = se.analyze(tmp_path / "local", window=4)
    said: list[str] = []
    there = se.analyze(
        f"{REPO}@step*", window=4, drop_cache=True, memory_bytes=memory_bytes, say=said.append, out=tmp_path / "out"
    )
    assert "are downloaded one at a time" in said[0]
    assert ("in memory" in said[1]) == (memory_bytes == 2**31)
    assert_same_rows(there, plain)
    assert repo.blobs() == []
    assert repo.most_blobs == 2  # the last revision, which is looked at first, and one other
    assert not list(repo.storage.rglob("*.safetensors"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["recording.jsonl"]


def test_what_was_there_before_stays(repo: Hub) -> None:
    repo.snapshot_download(REPO, "step20", ["model.safetensors"])
    before = repo.blobs()
    se.analyze(f"{REPO}@step*", window=4, drop_cache=True)
    assert repo.blobs() == before
    assert len(list(repo.storage.glob("snapshots/*/model.safetensors"))) == 1


def test_what_a_killed_run_left_in_the_cache_is_dropped_too(
    repo: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repo.snapshot_download(REPO, "step40", ["model.safetensors"])
    before = repo.blobs()

    def killed(self: Fetched) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fetched, "drop", killed)
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            se.analyze(f"{REPO}@step*", window=4, drop_cache=True, out=tmp_path / "out")
    assert len(repo.blobs()) > len(before)
    se.analyze(f"{REPO}@step*", window=4, drop_cache=True, out=tmp_path / "out")
    assert repo.blobs() == before


def test_unreadable_and_empty_revisions_are_skipped(repo: Hub, tmp_path: Path) -> None:
    repo.files["step30"] = {"model.safetensors": b"x" * 200}
    repo.files["step60"] = {"README.md": b"gone"}
    plain = se.analyze(f"{REPO}@step*", window=2)
    assert plain.steps.tolist() == [10, 20, 50]
    assert [entry["file"] for entry in plain.meta["skipped"]] == ["step30", "step60"]
    assert "must hold weights" in plain.meta["skipped"][1]["reason"]
    dropped = se.analyze(f"{REPO}@step*", window=2, drop_cache=True)
    assert dropped.steps.tolist() == [10, 20, 50]
    assert [len(e.detail) > 0 for e in dropped.events] == [True, True]
    for drop_cache in (False, True):
        with pytest.raises(DataError):
            se.analyze(f"{REPO}@step*", window=2, strict=True, drop_cache=drop_cache)


def test_a_change_of_structure_while_dropping_begins_a_segment(repo: Hub) -> None:
    for i, state in enumerate(walk(8)):
        if i >= 4:
            state["layers.2.mlp.weight"] = torch.ones(3, 3) * i
        repo.files[f"step{10 * i}"] = {"model.safetensors": save(state)}
    plain = se.analyze(f"{REPO}@step*", window=2)
    dropped = se.analyze(f"{REPO}@step*", window=2, drop_cache=True)
    assert dropped.segment.tolist() == [0, 0, 0, 1, 1, 1]
    assert dropped == plain


def test_tied_weights_are_found_while_dropping(repo: Hub) -> None:
    for i, state in enumerate(walk(8)):
        state["head.weight"] = state["embed.weight"].clone()
        state["layers.1.attn.weight"] = state["layers.1.attn.weight"] + i
        repo.files[f"step{10 * i}"] = {"model.safetensors": save(state)}
    plain = se.analyze(f"{REPO}@step*", window=2)
    dropped = se.analyze(f"{REPO}@step*", window=2, drop_cache=True)
    assert dropped.meta["tied"] == {"embed.weight": ["head.weight"]}
    assert dropped == plain


def test_weights_as_bin_where_there_are_no_safetensors(repo: Hub, tmp_path: Path, local: se.Recording) -> None:
    for i, state in enumerate(walk(8)):
        torch.save(state, tmp_path / "x.bin")
        repo.files[f"step{10 * i}"] = {"pytorch_model.bin": (tmp_path / "x.bin").read_bytes()}
    assert_same_rows(se.analyze(f"{REPO}@step*", window=4), local)


def test_which_files_are_weights() -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": 5 for i in (1, 2)}
    index = {"model.safetensors.index.json": 1}
    assert weight_files({**shards, **index, "pytorch_model.bin": 9}) == {**shards, **index}
    assert weight_files({"pytorch_model.bin": 9, "training_args.bin": 1}) == {"pytorch_model.bin": 9}
    assert weight_files({"tiny.safetensors": 9, "README.md": 1}) == {"tiny.safetensors": 9}
    assert weight_files({"README.md": 1}) == {}


def test_a_revision_that_moves_meanwhile_is_refused(repo: Hub) -> None:
    series = find_revisions(f"{REPO}@step*")
    repo.files["step40"] = {"model.safetensors": save({"w": torch.ones(2)})}
    with pytest.raises(DataError, match=r"revision step40 of some-lab/tiny-1m must stay as it is .* it moved from"):
        se.analyze(series, window=4)


def test_errors_are_sentences(repo: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        def raises(name: str) -> None:
            raise error

        monkeypatch.setattr(repo, "list_repo_refs", raises)

    with pytest.raises(DataError, match="nobody/nothing must be a repository of the hub; there is none of that name"):
        se.analyze("nobody/nothing@step*")
    with pytest.raises(DataError, match=r"'epoch\*' matches none of its 9 branches and tags, which begin "):
        se.analyze(f"{REPO}@epoch*")
    with pytest.raises(DataError, match=r"at least 2 revisions with a step .* matches step70"):
        se.analyze(f"{REPO}@step70")
    fail(errors.GatedRepoError("403", response=_response(403)))
    with pytest.raises(DataError, match=r"must be open to you; it is gated\. Ask for access"):
        se.analyze(f"{REPO}@step*")
    fail(errors.OfflineModeIsEnabled("offline"))
    with pytest.raises(DataError, match="must be in the cache while the hub cannot be reached"):
        se.analyze(f"{REPO}@step*")
    fail(ConnectionError("Name or service\nnot known"))
    with pytest.raises(
        DataError, match=r"the hub must be reachable .* ConnectionError: Name or service not known"
    ) as e:
        se.analyze(f"{REPO}@step*")
    assert "\n" not in str(e.value)


def test_two_revisions_of_one_step_are_refused(repo: Hub) -> None:
    repo.files["step-070"] = repo.files["step70"]
    with pytest.raises(DataError, match=r"step 70 of .* has step-070 and step70"):
        find_revisions(f"{REPO}@step*")


def test_offline_the_real_client_finds_what_is_in_the_cache(repo: Hub, tmp_path: Path) -> None:
    for name in list(repo.files)[:4]:
        if name != "main":
            repo.snapshot_download(REPO, name, ["model.safetensors"])
    program = f"import spectraledge as se; print(se.analyze('{REPO}@step*', window=2).steps.tolist())"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(repo.cache)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[10, 20, 30]"


def test_nothing_else_asks_the_hub(tmp_path: Path) -> None:
    program = (
        "import sys, spectraledge as se\n"
        f"se.analyze({str(save_walk(tmp_path, 3))!r}, window=2)\n"
        "assert 'huggingface_hub' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
