"""Heads that more than one network answers with."""

import torch
from torch import Tensor, nn


class MaxPoolingHead(nn.Module):
    """Accumulated max-pooling: a linear classifier for each step, on the maximum of all features so far.

    Its state is that maximum, so a step costs one step: an MLP on the new features, and one classifier.

    Args:
        channels: of the features.
        num_classes: C.
        num_steps: as many classifiers as there are.
        beside: channels of what classifiers see beside the maximum.
        hidden: channels of the maximum.

    Source: Uni-AdaFocus, Appendix H.1; AdaFocusV2.
    """

    def __init__(self, channels: int, num_classes: int, num_steps: int, beside: int = 0, *, hidden: int = 4096) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
        classifiers = [nn.Linear(hidden + beside, num_classes) for _ in range(num_steps)]
        self.classifiers = nn.ModuleList(classifiers)
        self.dropout = nn.Dropout(0.0)

    def pool(self, features: Tensor, maximum: Tensor | None = None) -> list[Tensor]:
        """The maximum [B, 4096] after each of n more steps.

        Args:
            features: [B, n, channels] of these steps.
            maximum: [B, 4096] of those before; None if there were none.
        """
        found = []
        for step in self.mlp(features.flatten(0, 1)).unflatten(0, features.shape[:2]).unbind(1):
            maximum = step if maximum is None else torch.maximum(maximum, step)
            found.append(maximum)
        return found

    def answer(self, maxima: list[Tensor], steps: slice = slice(None), beside: Tensor | None = None) -> Tensor:
        """Logits [B, n, C] of n steps, from the maximum [B, 4096] after each.

        Args:
            steps: their numbers.
            beside: [B, channels] of what classifiers see beside the maximum.
        """
        seen = maxima if beside is None else [torch.cat([maximum, beside], 1) for maximum in maxima]
        answers = [layer(self.dropout(x)) for layer, x in zip(self.classifiers[steps], seen, strict=True)]
        return torch.stack(answers, 1)

    def published_layers(self, ours: str, mlp: str, classifiers: str) -> dict[str, str]:
        """Layer of this head, which is `ours` in its network -> its name in published checkpoints."""
        steps = range(len(self.classifiers))
        return {f"{ours}.mlp": f"{mlp}.layers"} | {f"{ours}.classifiers.{i}": f"{classifiers}.{i}.1" for i in steps}


class ClipHead(nn.Module):
    """X3D's classifier of a whole clip, on features pooled over time and space; SlowFast's names.

    Source: Feichtenhofer, X3D, 2020, in SlowFast's form, without its softmax.
    """

    hidden = 2048

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.lin_5 = nn.Conv3d(channels, self.hidden, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.0)
        self.projection = nn.Linear(self.hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, channels]."""
        pooled = features.mean(1)[..., None, None, None]  # [B, channels, 1, 1, 1]
        return self.projection(self.dropout(self.relu(self.lin_5(pooled)).flatten(1)))
