"""The figures behind ``spectraledge plan``."""

from __future__ import annotations

import torch

from .._attach import plan, plan_stores
from ..checkpoints.size import checkpoint_size
from ..errors import SettingError
from ..stream.choose import Candidate, pick, reason
from ..stream.cost import free_memory, human_bytes
from .content import Content
from .options import whole


def plan_content(
    checkpoint: str | None,
    parameters: str | None,
    blocks: str,
    window: int,
    every: int,
    lags: int | None,
    step_ms: float | None,
    device: str,
    memory: str | None = None,
    folder: str = ".",
) -> Content:
    """Cost of monitoring, a step, and against the free memory; with a budget all ways to keep the ring.

    Raises:
        SettingError: If not exactly one of ``checkpoint`` and ``parameters`` is given, or a number cannot be.
        DataError: If the checkpoint cannot be read.
    """
    if (checkpoint is None) == (parameters is None):
        given = "neither" if checkpoint is None else "both"
        raise SettingError(
            f"a plan needs a checkpoint or --parameters, one of the two; got {given}. "
            "Write for example --parameters 124e6."
        )
    if step_ms is not None and not 0 < step_ms < float("inf"):
        raise SettingError(f"step-ms must be above 0; got {step_ms}. Give the milliseconds of one training step.")
    n_parameters, n_blocks, itemsize = _size(checkpoint, parameters, blocks)
    budget = None if memory is None else float(whole("memory", memory))
    stores: list[Candidate] = []
    try:
        where = torch.device(device)
        cost = plan(
            n_parameters,
            n_blocks=n_blocks,
            window=window,
            every=every,
            lags=lags,
            device=str(where),
            itemsize=itemsize,
        )
        if budget is not None:
            stores = plan_stores(
                n_parameters,
                n_blocks=n_blocks,
                window=window,
                lags=lags,
                device=str(where),
                itemsize=itemsize,
                memory=budget,
                folder=folder,
            )
    except (RuntimeError, AssertionError) as error:  # torch without that accelerator asserts
        raise SettingError(f"device must be one that torch can use here; got {device} ({error}). Use cpu.") from error
    free = free_memory(where)
    ms_a_step = cost.append_ms / every
    return {
        **cost.as_dict(),
        "window": window,
        "ms_a_step": ms_a_step,
        "percent_of_step": None if step_ms is None else 100 * ms_a_step / step_ms,
        "free_bytes": free,
        "fits": None if free is None else cost.ring_bytes <= free / 4,  # as `attach` decides
        **({} if budget is None else _budget(stores, budget)),
    }


def _budget(stores: list[Candidate], memory: float) -> Content:
    chosen = pick(stores, memory)
    return {
        "memory": memory,
        "stores": [store.as_dict() for store in stores],
        "chosen": chosen.name,
        "reason": reason(chosen, stores, memory),
    }


def store_rows(content: Content) -> list[Content]:
    """The ways to keep the ring, for people, the chosen one marked."""
    return [
        {
            "ring": store["name"],
            "memory": human_bytes(store["memory_bytes"]),
            "file": human_bytes(store["file_bytes"]) if store["file_bytes"] else None,
            "a snapshot": None if store["append_ms"] is None else f"{store['append_ms']:.3g} ms",
            "a step": None if store["append_ms"] is None else f"{store['append_ms'] / content['every']:.3g} ms",
            "error": store["error"],
            "fits": store["fits"],
            "chosen": True if store["name"] == content["chosen"] else None,
        }
        for store in content["stores"]
    ]


def plan_rows(content: Content) -> list[Content]:
    """The same figures for people."""
    free, percent = content["free_bytes"], content["percent_of_step"]
    values = {
        "parameters": content["n_parameters"],
        "blocks": content["n_blocks"],
        "lags": content["lags"],
        "largest window": content["lags"] + 1,
        "memory of the ring": f"{human_bytes(content['ring_bytes'])} on {content['device']}",
        "free memory": None if free is None else human_bytes(free),
        "ring within a quarter of it": content["fits"],
        "time of a snapshot": f"{content['append_ms']:.3g} ms ({content['backend']})",
        "time a step": f"{content['ms_a_step']:.3g} ms at every={content['every']}",
        "share of a step": None if percent is None else f"{percent:.3g} %",
        "file": f"{human_bytes(content['record_bytes'])} a record",
    }
    return [{"quantity": name, "value": value} for name, value in values.items()]


def _size(checkpoint: str | None, parameters: str | None, blocks: str) -> tuple[int, int, int]:
    number = whole("blocks", blocks) if blocks.isdecimal() else None
    if checkpoint is not None:
        size = checkpoint_size(checkpoint, "layer" if number is not None or not blocks else blocks)
        return size.n_parameters, number or size.n_blocks, size.itemsize
    if blocks and number is None:
        raise SettingError(
            f"blocks must be a number where no checkpoint tells the names of tensors; got {blocks}. "
            "Write for example --blocks 12."
        )
    return whole("parameters", parameters or ""), number or 1, 4
