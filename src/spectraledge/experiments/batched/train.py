"""The training loop of a batch of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from ..session import own_torch
from .evaluation import BatchedEvaluation
from .member import Member
from .step import BatchedStep

# Called as progress(number of the run, step, steps, metrics) at each evaluation.
BatchProgress = Callable[[int, int, int, Mapping[str, float]], None]


def train_together(members: Sequence[Member], *, overwrite: bool, progress: BatchProgress | None = None) -> None:
    """Train every member to its end; one that has ended leaves the computation.

    Args:
        members: Runs of one kind.
        overwrite: Their folders may hold runs to be replaced.
        progress: Called at each evaluation with the member's number first.

    Raises:
        NotOneComputation: If the members cannot be trained as one.
    """
    with own_torch(members[0].settings), ExitStack() as opened:
        batch = BatchedStep(
            [member.experiment for member in members],
            [member.settings for member in members],
            [member.optimizers for member in members],
        )
        evaluation = BatchedEvaluation(batch.stack, batch.tasks)
        for member in members:
            member.open(overwrite=overwrite, together=len(members))
            opened.callback(member.close)
        running = list(enumerate(members))
        step = 0
        while running:
            step += 1
            losses, norms = batch.step(step)
            for _, member in running:
                member.after_step(step)
            evaluated = [index for index, (_, member) in enumerate(running) if member.evaluation_due]
            # Reading a number waits for the device: only where somebody wants it.
            read = list(zip(losses.tolist(), norms.tolist())) if evaluated else []
            metrics = dict(zip(evaluated, evaluation.evaluate(evaluated)))
            for index, (number, member) in enumerate(running):
                loss, norm = read[index] if read else (math.nan, math.nan)
                logged = member.log(loss, norm, metrics.get(index))
                if logged is not None and progress is not None:
                    progress(number, step, member.settings.steps, logged)
            going = [index for index, (_, member) in enumerate(running) if member.position.reason is None]
            if len(going) < len(running):
                for index in set(range(len(running))) - set(going):
                    running[index][1].close()
                batch.keep(going)
                evaluation.keep(going)
                running = [running[index] for index in going]
