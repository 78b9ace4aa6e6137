"""Checkpoints that a repository of the Hugging Face hub keeps as revisions: ``owner/name@pattern``.

This module and ``downloads.py`` alone speak to a network, and only when such a name is given. Owns which revisions
make up a series and which of their files are weights.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import DataError, require
from .names import step_of
from .series import multiples

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<pattern>[^@]+)", re.ASCII)
_SHARD = re.compile(r"-\d{4,}-of-\d{4,}\.(safetensors|bin)$", re.ASCII)
_LISTINGS = 8  # at a time
_NO_WEIGHTS = re.compile(r"^(training_args|optimizer|scheduler|random_states|rng_state)", re.ASCII)


@dataclass(frozen=True)
class Revision:
    """A branch or tag that holds a checkpoint.

    Attributes:
        step: Training step, from its name.
        name: As on the hub.
        commit: What it pointed to when it was looked up.
        files: Weight files and their sizes in bytes; empty where there are none.
    """

    step: int
    name: str
    commit: str
    files: Mapping[str, int]

    @property
    def n_bytes(self) -> int:
        """Of its weight files."""
        return sum(self.files.values())


@dataclass(frozen=True)
class HubSeries:
    """Revisions of a repository in the order of their steps; nothing has been downloaded.

    Attributes:
        repo: ``owner/name``.
        pattern: What the revisions' names match.
        revisions: At least two.
        ignored: Names of revisions that match and are no members.
        state_key: Name of the model's table in a checkpoint that holds several.
    """

    repo: str
    pattern: str
    revisions: tuple[Revision, ...]
    ignored: tuple[str, ...] = ()
    state_key: str | None = None

    @property
    def source(self) -> str:
        """As it was given."""
        return f"{self.repo}@{self.pattern}"

    @property
    def n_bytes(self) -> int:
        """Of all weight files."""
        return sum(revision.n_bytes for revision in self.revisions)

    def thinned(self, every: int) -> HubSeries:
        """The revisions whose steps lie whole multiples of ``every`` behind the first one's.

        Raises:
            SettingError: If ``every`` is below 1.
            DataError: If fewer than two are left.
        """
        hint = "Use a smaller number, or leave it out."
        kept = multiples(self.revisions, every, f"revisions {self.source}", hint)
        left_out = tuple(r.name for r in self.revisions if r not in kept)
        return replace(self, revisions=kept, ignored=(*self.ignored, *left_out))

    def table(self) -> list[dict[str, Any]]:
        """One row a revision: ``step``, ``file`` (its name), ``bytes``, ``format`` and ``problem``."""
        return [
            {
                "step": revision.step,
                "file": revision.name,
                "bytes": revision.n_bytes or None,
                "format": next((Path(name).suffix[1:] for name in revision.files if "index" not in name), None),
                "problem": None if revision.files else no_weights(self.repo, revision.name),
            }
            for revision in self.revisions
        ]


def is_hub_id(source: object) -> bool:
    """Whether a source is ``owner/name@pattern`` and no file or folder of that name.

    Example:
        >>> is_hub_id("EleutherAI/pythia-14m@step*"), is_hub_id("runs/checkpoints")
        (True, False)
    """
    return isinstance(source, str) and _ID.fullmatch(source) is not None and not os.path.lexists(source)


def find_revisions(source: str, *, step_regex: str | None = None, state_key: str | None = None) -> HubSeries:
    """The revisions that a name asks for, looked up on the hub, or in the cache where HF_HUB_OFFLINE is set.

    Args:
        source: ``owner/name@pattern``; the pattern (``step*``, ``step[0-9]000``) is matched with names of branches
            and tags.
        step_regex: Picks the step out of a revision's name.
        state_key: Name of the model's table in a checkpoint that holds several.

    Raises:
        DataError: If there is no such repository, none of its revisions matches, it is gated, or the hub cannot be
            reached.
        MissingDependencyError: If huggingface_hub is not installed.
    """
    hub: Any = require("huggingface_hub", "hub")
    match = _ID.fullmatch(source)
    if match is None:
        raise DataError(f"a repository must be given as owner/name@pattern; got {source}. Write for example @step*.")
    repo, pattern = match["repo"], match["pattern"]
    offline = bool(_constants().HF_HUB_OFFLINE)
    with explained(repo):
        refs = _cached_refs(repo) if offline else _refs(hub, repo)
    matching = {name: commit for name, commit in refs.items() if fnmatch.fnmatchcase(name, pattern)}
    if not matching:
        where = "in the cache (HF_HUB_OFFLINE is set)" if offline else f"of its {len(refs)} branches and tags"
        names = ", ".join(list(refs)[:4])
        raise DataError(
            f"a pattern must match revisions of {repo}; {pattern!r} matches none {where}"
            f"{f', which begin {names}' if names else ''}. Give another pattern, as in {repo}@step*."
        )
    steps = {name: step_of(name, step_regex) for name in matching}
    named = sorted((step, name) for name, step in steps.items() if step is not None)
    ignored = tuple(name for name, step in steps.items() if step is None)
    _check_steps(source, named, ignored)
    listing = _cached_files if offline else _listed
    with explained(repo), ThreadPoolExecutor(_LISTINGS) as pool:  # one short request a revision
        listed = pool.map(lambda each: listing(repo, matching[each[1]]), named)
        revisions = [
            Revision(step, name, matching[name], weight_files(files))
            for (step, name), files in zip(named, listed, strict=True)
        ]
    return HubSeries(repo, pattern, tuple(revisions), ignored, state_key)


def weight_files(listed: Mapping[str, int]) -> dict[str, int]:
    """The weight files among a revision's files: safetensors where there are any, ``.bin`` else; never both.

    Example:
        >>> sorted(weight_files({"config.json": 9, "model.safetensors": 80, "pytorch_model.bin": 80}))
        ['model.safetensors']
    """
    for single, suffix in (("model.safetensors", ".safetensors"), ("pytorch_model.bin", ".bin")):
        if single in listed:
            return {single: listed[single]}
        index = f"{single}.index.json"
        if index in listed:
            shards = {name: size for name, size in listed.items() if _SHARD.search(name) and name.endswith(suffix)}
            return {index: listed[index], **shards}
        others = [name for name in listed if name.endswith(suffix) and not _NO_WEIGHTS.match(name)]
        if len(others) == 1:
            return {others[0]: listed[others[0]]}
    return {}


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turns what the hub's library raises into one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except DataError:
        raise
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repo} must be open to you; it is gated. Ask for access on its page, then log in: hf auth login."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{repo} must be a repository of the hub; there is none of that name that you may see. Check its "
            "spelling, or log in where it is private: hf auth login."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{repo} must hold the revisions that were looked up; one is gone. Analyze it again."
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise DataError(
            f"the weights of {repo} must be in the cache while the hub cannot be reached; they are not, or not all. "
            "Check the connection, or unset HF_HUB_OFFLINE, and give the same command again."
        ) from error
    except errors.HFValidationError as error:
        raise DataError(
            f"{repo} must be a name that the hub allows; got {_line(error)}. Check its spelling."
        ) from error
    except Exception as error:  # the kinds depend on the version's own client: requests, httpx
        raise DataError(
            f"the hub must be reachable to read {repo}; got {type(error).__name__}: {_line(error)}. Check the "
            "connection and give the same command again: what has been downloaded is kept."
        ) from error


def _refs(hub: Any, repo: str) -> dict[str, str]:
    """Branches and tags of a repository, and the commits that they point to."""
    refs = hub.HfApi().list_repo_refs(repo)
    return {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}


def _listed(repo: str, commit: str) -> dict[str, int]:
    hub: Any = require("huggingface_hub", "hub")
    tree = hub.HfApi().list_repo_tree(repo, revision=commit)
    return {entry.path: entry.size for entry in tree if getattr(entry, "size", None) is not None}


def _cached_refs(repo: str) -> dict[str, str]:
    folder = storage_of(repo) / "refs"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text().strip() for path in files}


def _cached_files(repo: str, commit: str) -> dict[str, int]:
    folder = storage_of(repo) / "snapshots" / commit
    return {path.name: path.stat().st_size for path in folder.glob("*") if path.is_file()}


def storage_of(repo: str) -> Path:
    """Folder of the cache for a repository."""
    return Path(os.path.realpath(_constants().HF_HUB_CACHE)) / f"models--{repo.replace('/', '--')}"


def _constants() -> Any:
    return require("huggingface_hub.constants", "hub")


def _check_steps(source: str, named: list[tuple[int, str]], ignored: tuple[str, ...]) -> None:
    for (step, name), (other_step, other) in pairwise(named):
        if step == other_step:
            raise DataError(
                f"every step must have one revision; step {step} of {source} has {name} and {other}. "
                "Give a pattern or a step_regex that matches one of them."
            )
    if len(named) < 2:
        found = ", ".join([*(name for _, name in named), *ignored][:4])
        raise DataError(
            "at least 2 revisions with a step in their names are needed to form an update; "
            f"{source} matches {found}. "
            r"Give a wider pattern, or step_regex='...(\d+)'."
        )


def no_weights(repo: str, revision: str) -> str:
    """Why a revision is no checkpoint."""
    return f"{repo}@{revision} must hold weights (safetensors or .bin); it holds none. Leave it out by the pattern."


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
