"""The plain PyTorch loop that a user would write: nn.LSTM, a DataLoader, `.item()` each step."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.contender import CLASSES, DROPOUT, LEARNING_RATE, Work, drawn, run
from benchmarks.contenders.on_torch import OnTorch


class Classifier(nn.Module):
    """Two layers, with dropout between them, and a linear layer on the last output."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            work.pixels, work.hidden_size, num_layers=2, dropout=DROPOUT, batch_first=True
        )
        self.head = nn.Linear(work.hidden_size, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x)
        logits: Tensor = self.head(outputs[:, -1])
        return logits


class Plain(OnTorch):
    """The plain loop. `build` makes the model."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        train, test = data(work.train_images, work, 0), data(work.test_images, work, 1)
        self.train_loader = DataLoader(train, batch_size=work.batch_size, shuffle=True)
        self.test, self.eval_batch_size = test, work.eval_batch_size
        self.model = self.build(work).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.batches = self.endless()

    def build(self, work: Work) -> nn.Module:
        return Classifier(work)

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of all epochs, one epoch after another."""
        while True:
            yield from self.train_loader

    def step(self) -> None:
        pixels, labels = next(self.batches)
        self.model.train()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(pixels.to(self.device)), labels.to(self.device))
        loss.backward()
        self.optimizer.step()
        loss.item()

    @torch.no_grad()
    def answer(self, images: int) -> None:
        self.model.eval()
        right = 0
        some = torch.utils.data.Subset(self.test, range(images))
        for pixels, labels in DataLoader(some, batch_size=self.eval_batch_size):
            logits = self.model(pixels.to(self.device))
            right += (logits.argmax(dim=1) == labels.to(self.device)).sum().item()


def data(images: int, work: Work, seed: int) -> TensorDataset:
    """Random images as the usual pair of tensors: float32 in 0–1, and int64 labels."""
    pixels, labels = (torch.from_numpy(array) for array in drawn(images, work, seed))
    return TensorDataset(pixels.float() / 255, labels.long())


if __name__ == "__main__":
    run(Plain)
