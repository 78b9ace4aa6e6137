"""The page: complete, self-contained, and robust against what is in recordings."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from plot_runs import DEGENERATE, Run, window_of

from spectraledge.errors import DataError, OutputError, SettingError
from spectraledge.plots import KINDS
from spectraledge.reporting import report
from spectraledge.reporting.header import command, grok_lines, recording_lines, run_settings, table_groups
from spectraledge.reporting.runs import find_runs


class Reader(HTMLParser):
    """Elements, the text outside scripts, and what is in the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    @property
    def figures(self) -> dict:
        index = [a for t, a in self.elements if t == "script"].index({"id": "figures", "type": "application/json"})
        return json.loads(self.scripts[index])


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def test_every_panel_is_there_for_every_run(page: Path) -> None:
    reader = read(page)
    assert set(reader.figures) == {f"{kind.key}-{i}" for kind in KINDS for i in (0, 1)}
    for kind in KINDS:
        assert " ".join(kind.title.split()) in reader.text
        assert " ".join(kind.reading.split()) in reader.text
        assert " ".join(kind.method.split()) in reader.text
    ids = [attributes.get("id") for _, attributes in reader.elements]
    assert all(name in ids for name in reader.figures)
    assert "W = 10 updates (10 steps each) · block all · raw rows" in reader.text


def test_nothing_is_loaded_from_anywhere(page: Path) -> None:
    reader = read(page)
    loading = [
        (tag, attributes.get(name))
        for tag, attributes in reader.elements
        for name in ("src", "href", "srcset", "data", "action", "poster")
        if attributes.get(name) is not None and not (tag == "a" and str(attributes[name]).startswith("#"))
    ]
    assert loading == [("link", "data:,")]  # an empty icon, so that none is asked for
    text = page.read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in reader.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert page.stat().st_size < 8e6


def test_plotly_is_inside_once(page: Path) -> None:
    assert sum("plotly.js v" in script[:400] for script in read(page).scripts) == 1


def test_the_header_tells_what_the_runs_were(page: Path, two_runs: Path) -> None:
    text = read(page).text
    assert "spectraledge run modular/add --seed 42 --set weight_decay=1.0" in text
    assert "python train.py" in text
    assert "Only one learns <anything>." in text
    runs = find_runs(two_runs)
    assert [run.name for run in runs] == ["learns", "placebo"]
    groups = {group.title: dict(group.lines) for group in table_groups(runs)}
    assert groups["Settings that differ"]["labels"] == ("true", "shuffled")
    assert groups["Settings in common"]["p"] == ("97", "97")
    assert groups["Recording"]["seams"] == ("1 (before the updates to 310)", "0")
    # Accuracy rises by 1/48 every 10 steps, and by 1/33: 0.95 is first met at updates 46 and 32.
    assert groups["Grok step"]["first evaluation ≥ 0.95"] == ("460 − 10", "320 − 10")
    assert groups["Grok step"]["last of 3 consecutive evaluations ≥ 0.98"] == ("not by step 480", "not by step 330")


def test_a_run_without_config_or_accuracy_says_so(tmp_path: Path) -> None:
    Run(metrics=False).save(tmp_path)
    run = find_runs(tmp_path)[0]
    assert command(run) == ""
    assert grok_lines(run.recording) == {"all definitions": "no test accuracy was logged"}
    assert "SGD, lr 0.1" in run_settings(run)["optimizer group 0"]
    assert recording_lines(run)["damage"] == "none"
    (tmp_path / "config.json").write_text("{broken")
    assert "cannot be read" in run_settings(find_runs(tmp_path)[0])["remark"]
    assert "Not recorded" in read(report(tmp_path, tmp_path / "r.html")).text


def test_damage_is_told(tmp_path: Path) -> None:
    folder = Run().save(tmp_path)
    with (folder / "recording.jsonl").open("a") as file:
        file.write("not a record\n{torn")
    assert recording_lines(find_runs(folder)[0])["damage"] == "1 corrupt lines; torn tail"


def test_percentages_are_no_accuracy_and_no_failure(tmp_path: Path) -> None:
    recording = Run().recording()
    steps, values = recording.metrics["test_accuracy"]
    recording.metrics["test_accuracy"] = (steps, 100 * values)
    assert "between 0 and 1" in grok_lines(recording)["all definitions"]
    report(recording, tmp_path / "r.html")


@pytest.mark.parametrize(
    "name", ["no update", "too few updates", "one window", "only not finite", "frozen", "no P_eff"]
)
def test_degenerate_runs_have_pages(name: str, tmp_path: Path) -> None:
    recordings = [DEGENERATE[name].recording(), Run(n_updates=22).recording()]
    reader = read(report(recordings, tmp_path / "r.html", window=window_of(name)))
    assert "recording (1)" in reader.text
    assert {f"{kind.key}-1" for kind in KINDS} <= set(reader.figures)
    # What is not drawn is explained.
    missing = [kind for kind in KINDS if f"{kind.key}-0" not in reader.figures]
    notes = [a for t, a in reader.elements if t == "p" and a.get("class") == "note"]
    assert len(notes) >= len(missing)


def test_a_narrow_band_beside_a_wide_one_gets_its_reason(tmp_path: Path) -> None:
    reader = read(report([Run(lags=4).recording(), Run().recording()], tmp_path / "r.html"))
    assert "singular_values-0" not in reader.figures
    assert "singular_values-1" in reader.figures
    assert "Record with lags=9" in reader.text


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    recording = Run(blocks={evil: 100, "b": 200}, meta={"note": evil}).recording()
    recording.metrics[f"test_accuracy{evil}"] = recording.metrics["test_accuracy"]
    reader = read(report(recording, tmp_path / "r.html", names=[evil], title=evil, summary=[evil]))
    assert not [tag for tag, _ in reader.elements if tag == "img"]
    assert len(reader.scripts) == 3
    labels = reader.figures["block_map-0"]["data"][0]["y"]
    assert labels[0] == "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"


def test_recordings_are_found_below_a_folder_once(two_runs: Path) -> None:
    again = find_runs([two_runs, two_runs / "learns", two_runs / "learns" / "recording.jsonl"])
    assert [run.name for run in again] == ["learns", "placebo"]


def test_the_same_recordings_give_the_same_numbers(page: Path, two_runs: Path, tmp_path: Path) -> None:
    assert read(report(two_runs, tmp_path / "r.html")).figures == read(page).figures


def test_many_runs_stay_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recording = Run(n_updates=0).recording()
    steps = np.arange(1, 5_001)
    rng = np.random.default_rng(0)
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "batch_loss"):
        recording.metrics[name] = (steps, rng.uniform(0, 1, len(steps)))
    path = report([recording] * 40, tmp_path / "r.html")
    assert path.stat().st_size < 8e6
    assert len(read(path).figures) == 40


def test_mistakes_are_one_sentence_each(two_runs: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"empty must be a run folder.*no recording"):
        report([two_runs, empty], tmp_path / "r.html")
    with pytest.raises(DataError, match="nothing there"):
        report(tmp_path / "nowhere", tmp_path / "r.html")
    with pytest.raises(SettingError, match="got none"):
        report([], tmp_path / "r.html")
    with pytest.raises(SettingError, match="Record with lags=49"):
        report(two_runs, tmp_path / "r.html", window=50)
    with pytest.raises(SettingError, match="window must be at least 2"):
        report(two_runs, tmp_path / "r.html", window=1)
    with pytest.raises(SettingError, match="block must be in the recording"):
        report(two_runs, tmp_path / "r.html", block="third")
    with pytest.raises(SettingError, match="normalisation must be one of"):
        report(two_runs, tmp_path / "r.html", normalisation="unit")
    with pytest.raises(SettingError, match="one for each run; got 1 for 2"):
        report(two_runs, tmp_path / "r.html", names=["one"])
    with pytest.raises(OutputError, match="is a folder"):
        report(two_runs, tmp_path)
    with pytest.raises(OutputError, match="must be writable"):
        report(two_runs, two_runs / "learns" / "recording.jsonl" / "r.html")
    assert not list(tmp_path.glob("*.html"))


def test_other_views_are_written_on_the_panels(two_runs: Path, tmp_path: Path) -> None:
    reader = read(report(two_runs, tmp_path / "r.html", window=5, stride=2, block="first", normalisation="row"))
    assert "W = 5 rows of 2 updates (20 steps each) · block first · rows of length 1" in reader.text
    line = next(t for t in reader.figures["singular_values-0"]["data"] if t["name"] == "σ₁")
    values = [v for v in line["y"] if v is not None]
    # Five rows of length 1: sigma_1 lies between 1 and sqrt(5).
    assert 1 - 1e-6 <= np.min(values) <= np.max(values) <= np.sqrt(5) + 1e-6
