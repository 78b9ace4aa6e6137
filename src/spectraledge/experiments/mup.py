"""AdamW under mu-P for the modular transformer: parameter groups, and the scaling of its initialisation.

With m the width over that of a base model (``d_model`` and ``d_hidden`` both m times as large), what is scaled:

=====================================  ===============  =============  ============
tensors                                initial entries  learning rate  weight decay
=====================================  ===============  =============  ============
hidden matrices (attention, layers)    as they are      / m            * m
head, weight                           / sqrt(m)        / m            * m
position vectors                       * sqrt(m)        as it is       as it is
biases of ``nn.Linear``                * sqrt(m)        as it is       as it is
embedding, LayerNorm, other biases     as they are      as it is       as it is
=====================================  ===============  =============  ============

"As they are" means PyTorch's own start: matrices ~ 1 / sqrt(fan in), which is mu-P's already; embeddings N(0, 1).
A head of entries ~ 1 / fan in has logits of the order of 1 / sqrt(m) at the start. Biases and position vectors
start at 1 / sqrt(fan in) in this model and are brought to the same size at every width. The decay of a group is
multiplied by what its rate is divided by, so that every weight shrinks by lr * weight_decay a step at every width:
at decay 1 that is the time scale of grokking.

Not scaled: the forward pass. Attention keeps 1 / sqrt(d_head), which is mu-P's 1 / d only while the width of a head
stays as it is: grow the number of heads with the width, as ``width_study`` does. Nor are AdamW's epsilon, the global
gradient norm at which gradients are clipped, the batch size, or the zero start of query and head that some
implementations add.

At m = 1 nothing differs from the standard parametrisation. Source: standard result (Yang et al., Tensor Programs V,
arXiv:2203.03466, table 3, Adam); decay with a constant product is a standard choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from ..errors import SettingError
from .optimizers import hidden_matrices
from .settings import TrainingSettings

HEAD = "head.weight"
POSITION = "position"


def mup_groups(
    model: nn.Module, settings: TrainingSettings, outer: Sequence[str], ratio: float
) -> list[dict[str, Any]]:
    """AdamW's parameter groups at ``ratio`` times the base width, see the module's table.

    Args:
        model: The modular transformer, or one with the same names.
        settings: Learning rate and decay of the base width.
        outer: Beginnings of the names of parameters that face the data.
        ratio: m, width over base width.

    Returns:
        Two groups: matrices that read the width (hidden ones and the head), and all others. Together they hold
        every parameter once.

    Raises:
        SettingError: If the ratio is not positive, the optimizer is not AdamW, or the model has no head.
    """
    _check(model, ratio)
    if settings.optimizer != "adamw":
        raise SettingError(
            f"mu-P groups are made for adamw alone; got optimizer={settings.optimizer}. Use optimizer=adamw."
        )
    reads_width = {*hidden_matrices(model, outer), HEAD}
    named = list(model.named_parameters())
    return [
        {
            "params": [p for name, p in named if name in reads_width],
            "lr": settings.lr / ratio,
            "weight_decay": settings.weight_decay * ratio,
        },
        {
            "params": [p for name, p in named if name not in reads_width],
            "lr": settings.lr,
            "weight_decay": settings.weight_decay,
        },
    ]


def mup_optimizers(
    model: nn.Module, settings: TrainingSettings, outer: Sequence[str], ratio: float
) -> list[Optimizer]:
    """One AdamW over ``mup_groups``; the arguments and errors are the same."""
    groups = mup_groups(model, settings, outer, ratio)
    return [AdamW(groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)]


@torch.no_grad()
def mup_initialise(model: nn.Module, ratio: float) -> None:
    """Scale a fresh model's head, position vectors and linear biases in place, see the module's table.

    Args:
        model: The modular transformer as it is built; scaling it twice scales it twice.
        ratio: m, width over base width.

    Raises:
        SettingError: If the ratio is not positive or the model has no head.
    """
    _check(model, ratio)
    parameters = dict(model.named_parameters())
    parameters[HEAD].mul_(ratio**-0.5)
    if POSITION in parameters:
        parameters[POSITION].mul_(ratio**0.5)
    for module in model.modules():
        # The biases of attention start at 0 and stay there.
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.mul_(ratio**0.5)


def _check(model: nn.Module, ratio: float) -> None:
    if not ratio > 0.0:
        raise SettingError(f"ratio must be positive; got {ratio}. Give the width over that of the base model.")
    if HEAD not in dict(model.named_parameters()):
        raise SettingError(
            f"a model under mu-P must have a {HEAD}; got none. Only the modular experiments can be scaled."
        )
