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
    engaged: Tensor
    approved: Tensor
    demonstration: Tensor

    @classmethod
    def of_batch(cls, batch: Batch, device: torch.device) -> Self:
        """Return `batch` on `device`; on the CPU it shares the arrays' memory."""
        return cls(**{field.name: torch.as_tensor(getattr(batch, field.name), device=device) for field in fields(cls)})

    @classmethod
    def of_rows(cls, here: Tensor, there: Tensor, layout: RowLayout) -> Self:
        """Return views into rows (B, W) where the windows start and where they are bootstrapped."""
        columns, flags = layout.columns(), here.view(torch.uint8)
        values = {name: here[:, place] for name, place in columns.items()}
        values |= {name: values[name][:, 0] for name in ("reward", "discount")}
        values |= {f"next_{name}": there[:, columns[name]] for name in ("features", "proprio", "base")}
        return cls(**values, **{name: flags[:, layout.flag(name)] != 0 for name in FLAGS})
