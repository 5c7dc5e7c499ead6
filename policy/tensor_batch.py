"""A batch as tensors, of a batch of arrays or of replay rows that lie on the learner's device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from policy.replay_buffer import Batch
from policy.replay_rows import FLAGS, RowLayout


@dataclass(frozen=True, kw_only=True)
class TensorBatch:
    """The fields of `policy.replay_buffer.Batch`, as tensors."""

    features: Tensor
    proprio: Tensor
    base: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_features: Tensor
    next_proprio: Tensor
    next_base: Tensor
    human: Tensor
    human_action: Tensor
    hindsight: Tensor
    approved: Tensor
    demonstration: Tensor

    @classmethod
    def of_batch(cls, batch: Batch, device: torch.device) -> Self:
        """Return `batch` on `device`; on the CPU it shares the arrays' memory."""
        return cls(**{field.name: torch.as_tensor(getattr(batch, field.name), device=device) for field in fields(cls)})

    @classmethod
    def gathered(cls, rows: Tensor, picked: Tensor, layout: RowLayout) -> Self:
        """Return what begins at the rows `picked` (B,) int32 of all `rows` (R, W)."""
        here = rows.index_select(0, picked)
        next_rows = here.view(torch.int32)[:, layout.next_row]
        there = rows.index_select(0, next_rows)
        columns, flags = layout.columns(), here.view(torch.uint8)
        values = {name: here[:, place] for name, place in columns.items()}
        values |= {name: values[name][:, 0] for name in ("reward", "discount")}
        values |= {f"next_{name}": there[:, columns[name]] for name in ("features", "proprio", "base")}
        for name in ("features", "proprio"):
            if layout.history.ticks(name) > 1:
                values[name] = _window(rows, picked, here, layout, name)
                values[f"next_{name}"] = _window(rows, next_rows, there, layout, name)
        return cls(**values, **{name: flags[:, layout.flag(name)] != 0 for name in FLAGS})


def _window(rows: Tensor, picked: Tensor, present: Tensor, layout: RowLayout, name: str) -> Tensor:
    """Return the windows (B, ticks * size) that end at the rows `picked` (B,), whose own values are `present`."""
    previous, columns = rows.view(torch.int32)[:, layout.previous_row], layout.columns()[name]
    parts = [present[:, columns]]
    for _ in range(layout.history.ticks(name) - 1):
        picked = previous.index_select(0, picked)
        parts.insert(0, rows[:, columns].index_select(0, picked))
    return torch.cat(parts, dim=1)
