"""What a prediction is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import DataError
from .context import Context
from .runs import Run
from .verdict import AuthorRule, Verdict

Judge = Callable[[Sequence[Run], Context], Verdict]


@dataclass(frozen=True)
class Prediction:
    """One claim and how it is judged.

    Attributes:
        id: "T1" to "T8" of the paper, "C1" to "C16" of its companions, "GM" and "AR".
        claim: One sentence.
        source: With version.
        needs: What runs must bring, in words.
        command: The command that makes such runs.
        author_rule: The published check in words.
        published: What was reported.
        judge: Runs and settings to a verdict; raises DataError, with the reason, where the runs do not bring what it
            needs.
    """

    id: str
    claim: str
    source: str
    needs: str
    command: str
    author_rule: str
    published: str
    judge: Judge

    def __call__(self, runs: Sequence[Run], context: Context) -> Verdict:
        """The verdict; "not tested" with the reason and the command where the runs do not suffice."""
        author = AuthorRule(self.author_rule, published=self.published)
        try:
            found = self.judge(runs, context)
        except DataError as error:
            return Verdict(
                self.id, self.claim, self.source, "not tested", str(error), author=author, command=self.command
            )
        rule = replace(found.author, rule=self.author_rule, published=self.published)
        return replace(found, id=self.id, claim=self.claim, source=self.source, author=rule)
