"""PyTorch layers that shipped models are made of and that PyTorch has no module for."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

__all__ = ["MeanOfTokens", "Residual"]


@final
class Residual(nn.Module):
    """``relu(body(x) + short(x))``."""

    def __init__(self, body: nn.Module, short: nn.Module) -> None:
        super().__init__()
        self.body, self.short = body, short

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, rectified."""
        return torch.relu(self.body(x) + self.short(x))


@final
class MeanOfTokens(nn.Module):
    """The mean of the embeddings of a text's tokens, given to what follows."""

    def __init__(self, vocabulary: int, embedding: int, head: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.head = head

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores (n, classes) of texts, tokens (n, words) and lengths (n,)."""
        counts = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        vectors = self.embedding(tokens) * counts[..., None]
        return self.head(vectors.sum(1) / lengths[:, None])
