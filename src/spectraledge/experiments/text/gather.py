"""A free text of two kinds, prose and technical, made of Debian's packages.

``python -m spectraledge.experiments.text.gather OUT`` downloads the packages with apt-get, unpacks them in a
temporary folder, installs nothing, and writes OUT/prose.txt, OUT/technical.txt, OUT/SOURCES.tsv and the packages'
licences.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError, OutputError, SpectralEdgeError
from .assemble import documents_of, mix
from .packages import PACKAGES, Package

_SIDES = ("prose", "technical")


@dataclass(frozen=True)
class Unpacked:
    """A package on disk.

    Attributes:
        package: What of it is read.
        name: Its name.
        version: Its version.
        root: Where it is unpacked.
    """

    package: Package
    name: str
    version: str
    root: Path


@dataclass(frozen=True)
class Source:
    """What one package gave.

    Attributes:
        side: "prose" or "technical".
        package: Its name.
        version: Its version.
        licence: Its licence file, below the folder of the texts; empty where the package has none.
        bytes: UTF-8 bytes of its text.
    """

    side: str
    package: str
    version: str
    licence: str
    bytes: int


def gather_text(out: str | Path, packages: Sequence[Package] = PACKAGES) -> list[Source]:
    """Download packages and write the two texts; a package that the system's release lacks is left out.

    Args:
        out: Folder to write to; it is made, and must not hold the texts already.
        packages: What to read.

    Raises:
        OutputError: If the folder cannot be written or holds the texts.
        DataError: If this system has no apt-get, or none of the packages can be had.
    """
    folder = _fresh(Path(out))
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(
                f"gathering text must find apt-get, apt-cache and dpkg-deb; {tool} is missing. Do it on Debian, "
                "or give text of your own with --set text=FILE."
            )
    with tempfile.TemporaryDirectory() as work:
        return write_texts(_download(packages, Path(work)), folder)


def write_texts(unpacked: Iterable[Unpacked], folder: Path) -> list[Source]:
    """Write prose.txt, technical.txt, SOURCES.tsv and licences/ from unpacked packages.

    Raises:
        DataError: If no text is found.
        OutputError: If the folder cannot be written.
    """
    texts: dict[str, dict[str, list[str]]] = {side: {} for side in _SIDES}
    known: dict[str, Unpacked] = {}
    for item in unpacked:
        texts[item.package.side][item.name] = documents_of(item.package, item.root)
        known[item.name] = item
    sources = []
    try:
        for side in _SIDES:
            text, sizes = mix(texts[side])
            if not any(sizes.values()):
                continue
            (folder / f"{side}.txt").write_text(text, encoding="utf-8")
            for name, size in sizes.items():
                licence = _keep_licence(known[name], folder)
                sources.append(Source(side, name, known[name].version, licence, size))
        if not sources:
            raise DataError(
                "gathering text must find some; no package had any. Check the list of packages, or give text of "
                "your own with --set text=FILE."
            )
        lines = ["side\tpackage\tversion\tlicence\tbytes"]
        lines += [f"{row.side}\t{row.package}\t{row.version}\t{row.licence}\t{row.bytes}" for row in sources]
        (folder / "SOURCES.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} must be writable; {error.strerror}. Choose another folder.") from error
    return sources


def _fresh(folder: Path) -> Path:
    taken = [side for side in _SIDES if (folder / f"{side}.txt").exists()]
    if taken:
        raise OutputError(f"{folder} must not hold a gathered text; it has {taken[0]}.txt. Choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} must be a folder; {error.strerror}. Choose another.") from error
    return folder


def _keep_licence(item: Unpacked, folder: Path) -> str:
    copyright_file = item.root / "usr/share/doc" / item.name / "copyright"
    if not copyright_file.is_file():
        return ""
    kept = Path("licences") / f"{item.name}.txt"
    (folder / kept).parent.mkdir(exist_ok=True)
    shutil.copyfile(copyright_file, folder / kept)
    return kept.as_posix()


def _download(packages: Sequence[Package], work: Path) -> list[Unpacked]:
    archives = work / "archives"
    archives.mkdir()
    found = []
    problem = "the release has none of them"
    for package in packages:
        name = _newest_name(package.name)
        if name is None:
            continue
        done = subprocess.run(["apt-get", "download", name], cwd=archives, capture_output=True, text=True)
        files = sorted(archives.glob(f"{name}_*.deb"))
        if done.returncode or not files:
            problem = " ".join(done.stderr.split())[-200:]
            continue
        root = work / name
        subprocess.run(["dpkg-deb", "-x", files[0], root], check=True, capture_output=True)
        version = subprocess.run(["dpkg-deb", "-f", files[0], "Version"], check=True, capture_output=True, text=True)
        files[0].unlink()
        found.append(Unpacked(package, name, version.stdout.strip(), root))
    if not found:
        raise DataError(
            f"gathering text must download packages; apt-get gave: {problem}. Run apt-get update, or give text of "
            "your own with --set text=FILE."
        )
    return found


def _newest_name(pattern: str) -> str | None:
    listed = subprocess.run(
        ["apt-cache", "search", "--names-only", f"^{pattern}$"], capture_output=True, text=True
    ).stdout
    names = [line.split(" ", 1)[0] for line in listed.splitlines()]
    # By the numbers inside, so that 3.9 comes before 3.11.
    return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather text from the command line; 0 when it is written, 2 when it cannot be."""
    parser = argparse.ArgumentParser(prog="gather-text", description="Prose and technical text from Debian packages.")
    parser.add_argument("out", help="folder to write prose.txt, technical.txt, SOURCES.tsv and licences/ to")
    out = parser.parse_args(arguments).out
    try:
        sources = gather_text(out)
    except SpectralEdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for side in _SIDES:
        rows = [row for row in sources if row.side == side]
        sys.stdout.write(f"{side}.txt: {sum(row.bytes for row in rows) / 1e6:.1f} MB from {len(rows)} packages\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
