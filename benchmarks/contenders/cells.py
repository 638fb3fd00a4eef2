"""The plain PyTorch loop with two nn.LSTMCells and a loop over the time steps."""

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contender import CLASSES, DROPOUT, Work, run
from benchmarks.contenders.plain import Plain


class CellClassifier(nn.Module):
    """Two cells, with dropout of each output, and a linear layer on the last output."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.lower = nn.LSTMCell(work.pixels, work.hidden_size)
        self.upper = nn.LSTMCell(work.hidden_size, work.hidden_size)
        self.head = nn.Linear(work.hidden_size, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        lower = upper = None
        for row in x.unbind(dim=1):
            lower = self.lower(row, lower)
            upper = self.upper(F.dropout(lower[0], DROPOUT, self.training), upper)
        assert upper is not None  # an image has at least one row
        logits: Tensor = self.head(F.dropout(upper[0], DROPOUT, self.training))
        return logits


class Cells(Plain):
    """The plain loop with this model."""

    def build(self, work: Work) -> nn.Module:
        return CellClassifier(work)


if __name__ == "__main__":
    run(Cells)
