"""What the training loop asks of a task, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]


class Task(Protocol):
    """Data, loss and evaluation of one experiment.

    A task owns the generator that draws its batches: no global generator is read or advanced, so two tasks
    in one process do not disturb each other, and evaluating cannot alter what is drawn next.
    """

    def draw(self) -> Any:
        """Next training batch."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Scalar training loss of a batch, with a graph."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics of the whole training and test set; draws nothing and leaves no gradient."""
        ...

    def probe_losses(self) -> tuple[Loss, Loss]:
        """Training and validation loss of the whole sets, as functions of the model; they draw nothing."""
        ...

    def replica(self, stream: int) -> Task:
        """The same data with an independent batch generator; ``stream`` is at least 1, 0 being the run's own."""
        ...

    def state(self) -> dict[str, Any]:
        """State of the batch generator, as values that JSON can hold."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Put the batch generator back."""
        ...


@dataclass(frozen=True)
class Experiment:
    """A model and the task it is trained on, as a catalogue entry builds them.

    Attributes:
        model: The network.
        task: What it is trained on.
        outer: Beginnings of the names of parameters that face the data (embeddings, positions, head).
    """

    model: nn.Module
    task: Task
    outer: tuple[str, ...] = ()
