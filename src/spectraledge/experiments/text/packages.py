"""Which Debian packages the gathered text is taken from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["prose", "technical"]
Form = Literal["plain", "html", "fortune", "wordnet", "webster"]


@dataclass(frozen=True)
class Package:
    """One package and what of it is read.

    Attributes:
        name: Name of the package, or a regular expression where it holds a version, such as
            ``linux-doc-[0-9.]+``; the last name that matches is taken.
        side: Which of the two texts it goes to.
        form: How its files are read.
        patterns: Globs of the files, below the package's root.
        without: Parts of paths that are left out, translations for instance.
    """

    name: str
    side: Side
    form: Form
    patterns: tuple[str, ...]
    without: tuple[str, ...] = ()


PACKAGES = (
    Package("anarchism", "prose", "html", ("usr/share/doc/anarchism/html/*.html",)),
    Package("debian-history", "prose", "html", ("usr/share/doc/debian-history/docs/*.en.html",)),
    Package("fortunes-min", "prose", "fortune", ("usr/share/games/fortunes/*",), (".dat", ".u8")),
    Package("fortunes", "prose", "fortune", ("usr/share/games/fortunes/*",), (".dat", ".u8", "ascii-art")),
    Package("jargon-text", "prose", "plain", ("usr/share/doc/jargon-text/jargon.txt.gz",)),
    Package("wordnet-base", "prose", "wordnet", ("usr/share/wordnet/data.*",)),
    Package("dict-gcide", "prose", "webster", ("usr/share/dictd/gcide.dict.dz",)),
    Package("debian-handbook", "technical", "html", ("usr/share/doc/debian-handbook/html/en-US/*.html",)),
    Package(
        "debian-policy", "technical", "html", ("usr/share/doc/debian-policy/**/*.html",), ("genindex", "search.")
    ),
    Package("developers-reference", "technical", "html", ("usr/share/developers-reference/*.html",), ("search.",)),
    Package("git-doc", "technical", "html", ("usr/share/doc/git-doc/**/*.html",)),
    Package("postgresql-doc-[0-9]+", "technical", "html", ("usr/share/doc/postgresql-doc-*/html/*.html",)),
    Package("python3[.][0-9]+-doc", "technical", "plain", ("usr/share/doc/python3*/html/_sources/**/*.txt",)),
    Package(
        "linux-doc-[0-9.]+", "technical", "plain", ("usr/share/doc/*/html/_sources/**/*.txt",), ("/translations/",)
    ),
)
