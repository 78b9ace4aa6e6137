"""What the commands print, as tables and as JSON, on a recording whose numbers are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import spectraledge as se
from spectraledge.cli.app import app
from spectraledge.cli.content import spectrum_content
from spectraledge.errors import DataError, SettingError
from spectraledge.recording import RecordingWriter

LAGS, WINDOW, T, EVERY = 7, 4, 20, 10


def record(folder: Path, *, n_updates: int = T, seams: tuple[int, ...] = (), accuracy: bool = True) -> Path:
    """A recording of noise around one strong direction, in two blocks."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_updates, 40)) * 0.1
    x[:, 0] += 1.0
    blocks = {"layers.0": slice(0, 30), "layers.1": slice(30, 40)}
    info = [{"name": n, "n_parameters": s.stop - s.start, "layer": n, "kind": "mlp"} for n, s in blocks.items()]
    with RecordingWriter(folder, header_meta={"seed": 1}) as writer:
        writer.write(
            "segment", segment=0, step=0, reason="start", blocks=list(blocks), block_info=info, lags=LAGS,
            momentum=None, every=EVERY, n_parameters=40, update_dtype="float64",
        )  # fmt: skip
        for t in range(n_updates):
            products = np.full((2, LAGS + 1), np.nan)
            for lag in range(min(t, LAGS) + 1):
                products[:, lag] = [x[t, s] @ x[t - lag, s] for s in blocks.values()]
            writer.write(
                "row", t=t, segment=0, step=EVERY * (t + 1), n_steps=EVERY, products=products, theta_dot=[0.0, 0.0],
                theta_norm2=[1.0, 1.0], flags=["seam"] if t in seams else [],
            )  # fmt: skip
            if accuracy:
                writer.write("metrics", step=EVERY * (t + 1), values={"test_accuracy": min(1.0, t / 10)})
        writer.write("close", step=EVERY * n_updates)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("cli") / "run")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "ckpts"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    w = torch.zeros(6, 5)
    for step in range(0, 90, 10):
        w = w + torch.randn(6, 5, generator=generator)
        save_file({"a.weight": w, "b.weight": w[:2] * 2}, folder / f"step-{step}.safetensors")
    return folder


def tables(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*arguments: object) -> object:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(tables(*arguments, "--json"), parse_constant=refuse)  # the whole of standard output


def test_show_agrees_with_the_library(run_folder: Path) -> None:
    recording = se.load(run_folder)
    spectra = recording.spectra(WINDOW)
    content = as_json("show", run_folder, "--window", WINDOW)
    spectrum = content["spectrum"]
    assert spectrum["step"] == spectra.steps[-1] == EVERY * T
    assert [m["sigma"] for m in spectrum["modes"]] == spectra.singular_values[-1].tolist()
    assert [m["ratio"] for m in spectrum["modes"]] == [*spectra.ratios[-1].tolist(), None]
    assert [m["resolved"] for m in spectrum["modes"]] == [True] * WINDOW
    assert spectrum["p_eff"] == pytest.approx(spectra.p_eff[-1], rel=1e-12)  # the same products, in the same order
    gaps = {gap["rule"]: gap for gap in spectrum["gaps"]}
    assert set(gaps) == {"guarded", "plain", "weighted", "difference"}
    for rule, gap in gaps.items():
        expected = spectra.gap(rule)
        assert gap["k_star"] == expected.position[-1]
        assert gap["ratio"] == expected.ratio[-1]
        assert gap["width"] == expected.width[-1]
        assert gap["eigen_width"] == expected.eigen_width[-1]
        assert 0 < gap["p_value"] <= 1
    assert gaps["guarded"]["k_star"] == 1
    assert gaps["guarded"]["p_value"] < 0.05  # a direction ten times stronger than the noise
    assert content["recording"]["n_updates"] == T
    assert [b["name"] for b in content["blocks"]] == ["layers.0", "layers.1"]
    assert {g["step"] for g in content["grok"][:2]} == {EVERY * 11, EVERY * 13}


def test_show_prints_the_same_for_people(run_folder: Path) -> None:
    text = tables("show", run_folder, "--window", WINDOW)
    sigma = se.load(run_folder).spectra(WINDOW).singular_values[-1]
    for words in ("20 updates", "steps 10 to 200", "layers.1", "guarded", "weighted", "test_accuracy", "no seams"):
        assert words in text
    for value in sigma:
        assert f"{value:.5g}" in text
    table_lines = [line for line in text.splitlines() if line[:1] in "│┃"]
    assert max(map(len, table_lines)) <= 118


def test_show_one_block_one_rule_a_table_and_a_figure(run_folder: Path, tmp_path: Path) -> None:
    content = as_json(
        "show", run_folder, "--window", 3, "--stride", 2, "--block", "layers.1", "--rule", "plain",
        "--csv", tmp_path / "t.csv", "--plot", tmp_path / "new" / "sigma.png",
    )  # fmt: skip
    recording = se.load(run_folder)
    spectra = recording.spectra(3, 2, "layers.1")
    assert content["spectrum"]["block"] == "layers.1"
    assert [gap["rule"] for gap in content["spectrum"]["gaps"]] == ["plain"]
    assert content["spectrum"]["modes"][0]["sigma"] == spectra.singular_values[-1, 0]
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(spectra.steps)
    assert float(rows[-1]["sigma_1"]) == spectra.singular_values[-1, 0]
    assert (tmp_path / "new" / "sigma.png").read_bytes().startswith(b"\x89PNG")


def test_show_takes_the_last_complete_window(tmp_path: Path) -> None:
    folder = record(tmp_path / "seam", seams=(18,))
    spectrum = as_json("show", folder, "--window", WINDOW)["spectrum"]
    assert spectrum["step"] == EVERY * 18
    assert spectrum["incomplete_after"] == 2
    assert "2 later windows are cut" in tables("show", folder, "--window", WINDOW)
    assert "seams: 1" in tables("show", folder, "--window", WINDOW)


def test_show_refuses_in_one_sentence(run_folder: Path, tmp_path: Path) -> None:
    short = record(tmp_path / "short", n_updates=3)
    with pytest.raises(DataError, match=r"A run must have at least 4 updates for windows of 4 .*; it has 3"):
        tables("show", short, "--window", WINDOW)
    cut = record(tmp_path / "cut", n_updates=6, seams=(2, 4))
    with pytest.raises(DataError, match="at least one window of 4 updates must be whole"):
        tables("show", cut, "--window", WINDOW)
    with pytest.raises(SettingError, match="rule must be one of guarded, plain"):
        tables("show", run_folder, "--window", WINDOW, "--rule", "best")
    with pytest.raises(SettingError, match=r"block must be in the recording; got 'layers\.9'"):
        tables("show", run_folder, "--window", WINDOW, "--block", "layers.9")
    with pytest.raises(SettingError, match="plot must end in one of"):
        tables("show", run_folder, "--window", WINDOW, "--plot", tmp_path / "x.nothing")
    with pytest.raises(DataError, match="holds none"):
        tables("show", tmp_path)


def test_p_values_of_the_last_window_do_not_depend_on_the_length_of_the_run(run_folder: Path) -> None:
    recording = se.load(run_folder)
    content = spectrum_content(recording, window=WINDOW)
    spectra = recording.spectra(WINDOW)
    # other draws of 199 surrogates: the two estimates of one probability differ by a few standard errors at most
    for gap in content["gaps"]:
        p = spectra.gap(gap["rule"]).p_value[-1]
        assert abs(gap["p_value"] - p) <= 5 * np.sqrt(2 * max(p * (1 - p), 0.005) / 199)


def test_list(run_folder: Path) -> None:
    rows = as_json("list")
    assert {"kind", "name", "description"} == set(rows[0])
    assert "modular-36" in [row["name"] for row in rows if row["kind"] == "grid"]
    assert "modular/add" in [row["name"] for row in rows]
    assert "modular/add" in tables("list")


def test_plan_in_numbers() -> None:
    content = as_json("plan", "--parameters", "124e6", "--blocks", 12, "--window", 5, "--step-ms", 250, "--every", 50)
    expected = se.plan(124_000_000, n_blocks=12, window=5, every=50)
    assert content["n_parameters"] == 124_000_000
    assert content["ring_bytes"] == expected.ring_bytes == 124_000_000 * 4 * 10
    assert content["record_bytes"] == expected.record_bytes
    assert content["ms_a_step"] == content["append_ms"] / 50
    assert content["percent_of_step"] == 100 * content["ms_a_step"] / 250
    text = tables("plan", "--parameters", "1000")
    assert "memory of the ring" in text
    assert "1,000" in text


def test_plan_of_a_checkpoint(checkpoints: Path) -> None:
    for path in (checkpoints, checkpoints / "step-0.safetensors"):
        content = as_json("plan", path, "--blocks", "tensor")
        assert (content["n_parameters"], content["n_blocks"]) == (40, 2)
    assert as_json("plan", checkpoints, "--blocks", "7")["n_blocks"] == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a checkpoint or --parameters, one of the two; got neither"),
        (["x", "--parameters", "3"], "got both"),
        (["--parameters", "many"], "parameters must be a whole number of at least 1; got many"),
        (["--parameters", "1.5"], "got 1.5"),
        (["--parameters", "nan"], "got nan"),
        (["--parameters", "1e3", "--blocks", "layer"], "blocks must be a number where no checkpoint"),
        (["--parameters", "1e3", "--step-ms", "0"], "step-ms must be above 0"),
        (["--parameters", "1e3", "--window", "1"], "window must be at least 2; got 1"),
        (["--parameters", "1e3", "--device", "abacus"], "device must be one that torch can use here; got abacus"),
    ],
)
def test_plans_that_cannot_be(arguments: list[str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        tables("plan", *arguments)


def test_analyze_prints_the_series_and_then_shows(checkpoints: Path, tmp_path: Path) -> None:
    text = tables("analyze", checkpoints, "--out", tmp_path / "a", "--window", 3, "--blocks", "tensor")
    assert text.index("9 checkpoints in") < text.index("step-80.safetensors") < text.index("8 updates")
    assert "k_star" in text
    content = as_json("analyze", checkpoints, "--out", tmp_path / "b", "--window", 3, "--blocks", "tensor")
    assert [row["step"] for row in content["series"]] == list(range(0, 90, 10))
    assert se.load(tmp_path / "a") == se.load(tmp_path / "b")
    shown = as_json("show", tmp_path / "b", "--window", 3)
    assert content["spectrum"] == shown["spectrum"]


def test_analyze_options(checkpoints: Path, tmp_path: Path) -> None:
    content = as_json(
        "analyze", checkpoints, "--window", 2, "--lags", 3, "--params", r"^a\.", "--step-regex", r"step-([4-8]\d)",
        "--memory", "1000",
    )  # fmt: skip
    assert content["recording"]["lags"] == 3
    assert content["recording"]["n_updates"] == 4
    assert content["recording"]["blocks"] == ["all", "a"]
    assert content["recording"]["path"] is None
    files = [checkpoints / f"step-{step}.safetensors" for step in (0, 30, 60)]
    assert as_json("analyze", *files, "--window", 2)["recording"]["steps_per_update"] == 30


def test_analyze_skips_or_stops_at_a_bad_file(checkpoints: Path, tmp_path: Path) -> None:
    for path in checkpoints.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "step-40.safetensors").write_bytes(b"half")
    content = as_json("analyze", tmp_path, "--window", 2)
    assert content["recording"]["flags"] == {"seam": 1}
    assert "cut short" in content["series"][4]["problem"]
    assert "skipped step 40" in tables("analyze", tmp_path, "--window", 2)
    with pytest.raises(DataError, match=r"step-40\.safetensors"):
        tables("analyze", tmp_path, "--window", 2, "--strict")


def test_analyze_of_too_few_for_a_window_is_still_done(checkpoints: Path, tmp_path: Path) -> None:
    files = [checkpoints / f"step-{step}.safetensors" for step in (0, 10)]
    content = as_json("analyze", *files, "--out", tmp_path / "two")
    assert content["spectrum"] is None
    assert se.load(tmp_path / "two").n_updates == 1


def test_long_series_are_printed_in_part(tmp_path: Path) -> None:
    for step in range(50):
        save_file({"w": torch.full((2,), float(step))}, tmp_path / f"step-{step}.safetensors")
    (tmp_path / "step-25.safetensors").write_bytes(b"")
    text = tables("analyze", tmp_path, "--window", 2)
    assert "step-24.safetensors" not in text
    assert "step-25.safetensors" in text
    assert "19 readable checkpoints between them" in text
    assert len(as_json("analyze", tmp_path, "--window", 2)["series"]) == 50


TINY = ("--set", "p=7", "--set", "d_model=8", "--set", "heads=2", "--set", "steps=40", "--set", "eval_every=10")


def test_run_and_report(tmp_path: Path) -> None:
    out = tmp_path / "add"
    content = as_json("run", "modular/add", "--out", out, "--seed", 3, "--every", 2, "--window", 4, *TINY)
    assert content["experiment"] == "modular/add"
    assert content["recording"]["n_updates"] == 20
    assert content["spectrum"]["window"] == 4
    assert "test_accuracy" in content["recording"]["metrics"]
    written = as_json("report", out, "-o", tmp_path / "page.html", "--window", 4)
    assert written == {"report": str(tmp_path / "page.html")}
    assert "<html" in (tmp_path / "page.html").read_text()


def test_run_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Did you mean modular/add"):
        tables("run", "modular/ad")
    with pytest.raises(SettingError, match="a setting must read key=value; got 'p'"):
        tables("run", "modular/add", "--set", "p")


def test_demo_shows_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wiring only: the demo itself trains for minutes."""
    from spectraledge import demo as package
    from spectraledge.demo.run import Demo, Progress

    given = []

    def short(out: Path, *, seed: int, overwrite: bool, show: object) -> Demo:
        given.append((out, seed, overwrite))
        show({"grokking": Progress(step=10, steps=40), "placebo": Progress(steps=40, finished=True)})  # type: ignore[operator]
        return Demo({"grokking": out / "grokking"}, out / "report.html", ["both shrink"])

    monkeypatch.setattr(package, "demo", short)
    assert as_json("demo", "--out", tmp_path, "--seed", 7) == {
        "runs": {"grokking": str(tmp_path / "grokking")},
        "report": str(tmp_path / "report.html"),
        "summary": ["both shrink"],
    }
    assert "both shrink" in tables("demo", "--out", tmp_path, "--overwrite")
    assert given == [(tmp_path, 7, False), (tmp_path, 42, True)]
