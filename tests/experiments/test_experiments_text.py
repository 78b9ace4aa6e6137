from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from spectraledge.errors import DataError, MissingDependencyError, OutputError, SettingError
from spectraledge.experiments.text import ByteTokenizer, build_corpus, make_tokenizer
from spectraledge.experiments.text.assemble import as_text, documents_of, mix, pieces_of
from spectraledge.experiments.text.gather import Unpacked, _newest_name, gather_text, write_texts
from spectraledge.experiments.text.html_text import html_to_text
from spectraledge.experiments.text.packages import PACKAGES, Package
from spectraledge.experiments.text.sources import read_texts

LINES = [f"Line {n}: the gap between {n * n} and {n * 7}, naïvely – ≈ {n / 7:.3f}.\n" for n in range(400)]
TEXT = "".join(LINES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


# Files


def test_a_file_is_one_stream_whose_end_is_held_out(file: Path) -> None:
    corpus = build_corpus(str(file), tokenizer="bytes", val_fraction=0.25)
    assert (len(corpus.train), len(corpus.val)) == (1, 1)
    train, val = (corpus.tokenizer.decode(part[0].tolist()) for part in (corpus.train, corpus.val))
    assert train + val == TEXT
    assert len(val) == len(TEXT) // 4
    assert corpus.train.tokens.dtype == np.int32
    assert corpus.train.offsets.dtype == np.int64
    assert (corpus.vocab_size, corpus.end) == (257, 256)


def test_files_folders_and_globs_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, letter in (("b.txt", "b"), ("a.txt", "a"), ("sub/c.txt", "c"), ("d.md", "d")):
        (tmp_path / name).write_text(letter * 20)
    assert [part[0] for part in read_texts(str(tmp_path)).train] == ["a", "b", "c"]
    assert [part[0] for part in read_texts(f"{tmp_path}/d.md, {tmp_path}/a.txt").train] == ["d", "a"]
    assert [part[0] for part in read_texts(f"{tmp_path}/*.md").train] == ["d"]
    assert [part[0] for part in read_texts(str(tmp_path), max_documents=(2, 1)).train] == ["a", "b"]


def test_a_path_may_hold_a_comma(tmp_path: Path) -> None:
    (tmp_path / "a, b.txt").write_text("x" * 20)
    assert read_texts(str(tmp_path / "a, b.txt")).train == ["x" * 18]


@pytest.mark.parametrize("text", ["", " , "])
def test_no_text_names_the_setting(text: str) -> None:
    with pytest.raises(SettingError, match="--set text=FILE"):
        build_corpus(text)


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("none.txt", "exists"),
        ("empty.txt", "is empty"),
        ("latin.txt", "from byte 3"),
        ("folder", "holds none"),
        ("short.txt", "leaves 3 and 0"),
    ):
        with pytest.raises(DataError, match=words):
            build_corpus(str(tmp_path / name), tokenizer="bytes")


def test_settings_that_cannot_be(file: Path) -> None:
    with pytest.raises(SettingError, match="val_fraction"):
        build_corpus(str(file), val_fraction=1.0)
    with pytest.raises(SettingError, match="max_documents"):
        build_corpus(str(file), max_documents=(1, 0))
    with pytest.raises(SettingError, match="vocab_size must be at least 257"):
        build_corpus(str(file), vocab_size=256)
    with pytest.raises(SettingError, match="tokenizer must be"):
        build_corpus(str(file), tokenizer="words")


# Tokenizers


def test_byte_pairs_are_the_same_twice_and_lose_nothing(file: Path) -> None:
    first, second = (build_corpus(str(file), vocab_size=400) for _ in range(2))
    assert first.vocab_size == 400
    assert np.array_equal(first.train.tokens, second.train.tokens)
    assert (
        first.tokenizer.decode([*first.train.tokens.tolist(), first.end])
        + first.tokenizer.decode(first.val.tokens.tolist())
        == TEXT
    )
    assert not (first.train.tokens == first.end).any()
    assert len(first.train.tokens) < 0.6 * len(TEXT)


def test_byte_pairs_are_learnt_from_the_training_part_alone(tmp_path: Path) -> None:
    for name, end in (("a.txt", "zq" * 200), ("b.txt", "xj" * 200)):
        (tmp_path / name).write_text(TEXT[:3600] + end)
    first, second = (build_corpus(str(tmp_path / name), vocab_size=300) for name in ("a.txt", "b.txt"))
    assert np.array_equal(first.train.tokens, second.train.tokens)
    assert len(first.val.tokens) == 400


def test_a_long_text_is_encoded_in_pieces_that_join_to_it() -> None:
    tokenizer = make_tokenizer("bpe", [TEXT], 300)
    for text in (TEXT * 8, "gap" * 30_000, ""):
        (array,) = tokenizer.encode_all([text])
        assert tokenizer.decode(array.tolist()) == text
        if len(text) < 200_000:
            continue
        assert array.tolist() == tokenizer.encode(text)


def test_a_vocabulary_file_brings_its_own_end(file: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[UNK]", "the", "gap", "</s>"])}
    for name, kept, end in (("with", words, 3), ("without", {w: n for w, n in words.items() if n < 3}, 3)):
        inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(kept, unk_token="[UNK]"))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        inner.save(str(tmp_path / f"{name}.json"))
        corpus = build_corpus(str(file), tokenizer=str(tmp_path / f"{name}.json"))
        assert (corpus.end, corpus.vocab_size) == (end, 4)
        assert corpus.tokenizer.encode("the gap") == [1, 2]
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="tokenizer must be readable"):
        build_corpus(str(file), tokenizer=str(tmp_path / "bad.json"))


def test_the_tokenizer_of_another_corpus(file: Path, tmp_path: Path) -> None:
    first = build_corpus(str(file), vocab_size=300)
    (tmp_path / "b.txt").write_text("Another text of another kind. " * 20)
    second = build_corpus(str(tmp_path / "b.txt"), tokenizer=first.tokenizer)
    assert second.tokenizer is first.tokenizer
    assert second.vocab_size == 300


def test_without_the_package_bytes_are_offered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"spectraledge\[text\].*tokenizer=bytes"):
        build_corpus(str(file))
    assert build_corpus(str(file), tokenizer="bytes").vocab_size == 257


def test_bytes_that_are_no_text_decode() -> None:
    assert ByteTokenizer().decode([255, 256, 97]) == "�a"


# The placebo


def test_the_placebo_keeps_frequencies_and_lengths(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEXT[: 3000 if name == "a.txt" else 5000])
    true, one, again, other = (
        build_corpus(str(tmp_path), tokenizer="bytes", shuffled=shuffled, seed=seed)
        for shuffled, seed in ((False, 0), (True, 0), (True, 0), (True, 1))
    )
    assert np.array_equal(one.train.offsets, true.train.offsets)
    counts = [
        np.bincount(np.concatenate([corpus.train.tokens, corpus.val.tokens]), minlength=257) for corpus in (true, one)
    ]
    assert np.array_equal(*counts)
    assert np.array_equal(one.train.tokens, again.train.tokens)
    assert not np.array_equal(one.train.tokens, other.train.tokens)
    # Neighbours are independent: the chance that a token is followed by the one that follows it most often in
    # the true text falls to about that token's own frequency.
    pairs = [len(set(zip(c.train.tokens[:-1].tolist(), c.train.tokens[1:].tolist()))) for c in (true, one)]
    assert pairs[1] > 2 * pairs[0]


# Data sets


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return tmp_path / "rows"


def _write_rows(folder: Path, **splits: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for split, texts in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_rows_are_documents_and_short_ones_are_left_out(rows: Path) -> None:
    texts = [f"Row {n} is long enough to be a document of its own." for n in range(20)]
    _write_rows(rows, train=[*texts, "Short."], validation=texts[:4])
    corpus = build_corpus(f"hf:{rows}", tokenizer="bytes", max_documents=(15, 10))
    assert (len(corpus.train), len(corpus.val)) == (15, 4)
    assert corpus.tokenizer.decode(corpus.train[14].tolist()) == texts[14]
    one = read_texts(f"hf:{rows}:train", 0.25)
    assert (one.train, one.val) == (texts[:15], texts[15:])
    sliced = read_texts(f"hf:{rows}:train[:12]", 0.25, (8, 2))
    assert (sliced.train, sliced.val) == (texts[:8], texts[8:10])
    with pytest.raises(DataError, match="can be loaded"):
        read_texts(f"hf:{rows}:nowhere")


def test_a_saved_data_set_and_one_without_the_column(rows: Path) -> None:
    import datasets

    texts = [f"Row {n} is long enough to be a document of its own." for n in range(20)]
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(rows))
    found = read_texts(f"hf:{rows}")
    assert (found.train, found.val) == (texts[:18], texts[18:])
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"story": texts})}).save_to_disk(str(rows) + "2")
    with pytest.raises(DataError, match=r'column "text".*has story'):
        read_texts(f"hf:{rows}2")
    with pytest.raises(DataError, match="has train"):
        read_texts(f"hf:{rows}2:test")


def test_without_datasets_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"spectraledge\[text\]"):
        read_texts("hf:some/stories")


# Gathering

PAGE = """<!DOCTYPE html><html><head><title>Head</title><style>p {}</style></head><body>
<div role="navigation"><div>Up</div> Next</div><h1>The  gap<a class="headerlink" href="#x">¶</a></h1>
<p>One
  <em>line</em> &amp; more.<p>Unclosed<br>broken<ul><li>first</li><li>second</li></ul>
<pre>if x:
    y()</pre><script>var a = "<p>no</p>";</script><footer>Foot</footer></body></html>"""


def test_html_leaves_what_is_read() -> None:
    assert html_to_text(PAGE) == (
        "The gap\n\nOne line & more.\n\nUnclosed\nbroken\n\nfirst\n\nsecond\n\nif x:\n    y()"
    )


@pytest.mark.parametrize("page", ["", "<", "<nav>never closed", "</p></p>", "<p <p>a", "a <!-- b"])
def test_broken_html_is_read_without_errors(page: str) -> None:
    assert isinstance(html_to_text(page), str)


def test_forms() -> None:
    line = "00002137 03 n 02 abstract_entity 0 gap 0 001 @ 00001740 n 0000 | a thing | of thought  "
    assert as_text(f"  1 Licence | text\n{line}\n", "wordnet") == "abstract entity, gap: a thing | of thought"
    entry = "Gap \\Gap\\, n.\n   An opening. [Obs.]\n   [1913 Webster]\n\nGape\n"
    assert as_text(entry, "webster") == "Gap \\Gap\\, n.\n   An opening. [Obs.]\n\nGape\n"


def test_pieces_join_to_the_document() -> None:
    document = "\n\n".join(f"Paragraph {n}. " * (n % 5 + 1) for n in range(100))
    pieces = pieces_of(document, 300)
    assert "\n\n".join(pieces) == document
    assert max(map(len, pieces)) <= 300


def test_mixing_is_fixed_and_drops_what_came_before() -> None:
    documents = {name: [f"{name} {n} " + "text " * 60 for n in range(30)] for name in ("a", "b")}
    documents["b"].append(documents["a"][0])
    text, sizes = mix(documents)
    assert (text, sizes) == mix(documents)
    assert text.count("a 0 text") == 1
    assert sizes["a"] + sizes["b"] + 2 * 59 + 1 == len(text.encode())
    # 60 pieces in a random order: that the last ten all come from one package has a chance under 1e-3.
    assert {piece[0] for piece in text.strip().split("\n\n")[-10:]} == {"a", "b"}


def _unpack(root: Path) -> list[Unpacked]:
    share = root / "usr/share"
    (share / "doc/story/html").mkdir(parents=True)
    (share / "doc/story/copyright").write_text("Licence: free")
    (share / "doc/story/html/a.html").write_text(f"<p>{'A story. ' * 50}</p>")
    (share / "doc/story/html/a.de.html").write_text(f"<p>{'Eine Geschichte. ' * 50}</p>")
    (share / "manual.txt.gz").write_bytes(gzip.compress(("caf\xe9 manual " * 40).encode("latin-1")))
    (share / "link.txt.gz").symlink_to(share / "manual.txt.gz")
    story = Package("story", "prose", "html", ("usr/share/doc/story/html/*.html",), (".de.",))
    manual = Package("manual-[0-9]+", "technical", "plain", ("usr/share/*.gz",))
    return [Unpacked(story, "story", "1:2.0", root), Unpacked(manual, "manual-3", "3.1", root)]


def test_texts_sources_and_licences_are_written(tmp_path: Path) -> None:
    unpacked = _unpack(tmp_path / "root")
    assert len(documents_of(unpacked[1].package, tmp_path / "root")) == 1
    out = tmp_path / "out"
    out.mkdir()
    sources = write_texts(unpacked, out)
    assert (out / "prose.txt").read_text() == ("A story. " * 50).strip() + "\n"
    assert (out / "technical.txt").read_text(encoding="utf-8").startswith("café manual")
    assert (out / "licences/story.txt").read_text() == "Licence: free"
    assert (out / "SOURCES.tsv").read_text().splitlines() == [
        "side\tpackage\tversion\tlicence\tbytes",
        "prose\tstory\t1:2.0\tlicences/story.txt\t449",
        f"technical\tmanual-3\t3.1\t\t{sources[1].bytes}",
    ]
    assert len((out / "technical.txt").read_bytes()) == sources[1].bytes + 1
    with pytest.raises(OutputError, match=r"it has prose\.txt"):
        gather_text(out)
    with pytest.raises(DataError, match="no package had any"):
        write_texts([], tmp_path)


def test_without_apt_other_text_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"apt-get is missing.*text=FILE"):
        gather_text(tmp_path / "out")


def test_the_newest_of_several_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        stdout = "linux-doc-6.9 - Documentation\nlinux-doc-6.12 - Documentation\n"

    monkeypatch.setattr("subprocess.run", lambda *_args, **_options: Done)
    assert _newest_name("linux-doc-[0-9.]+") == "linux-doc-6.12"
    Done.stdout = ""
    assert _newest_name("none") is None


def test_both_sides_have_packages_and_names_are_unique() -> None:
    assert {package.side for package in PACKAGES} == {"prose", "technical"}
    assert len({package.name for package in PACKAGES}) == len(PACKAGES)
