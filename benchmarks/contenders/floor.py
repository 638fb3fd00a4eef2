"""The floor: only the matrix products of a step and of an evaluation, as few and large as possible.

B batch, T time steps, D pixels a row, H hidden size. Products that can be computed over all time
steps at once are one product. The recurrent products cannot: they are T products of (B, H), and
backward of (B, 4H).
"""

import torch
from torch import Tensor

from benchmarks.contender import CLASSES, Work, run
from benchmarks.contenders.on_torch import OnTorch


class Floor(OnTorch):
    """Products of random matrices of the model's sizes, in one precision."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.type = getattr(torch, work.precision)
        self.work = work
        self.training = Products(self, work.batch_size, backward=True)
        self.answering = Products(self, min(work.eval_batch_size, work.evaluated), backward=False)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """A random matrix."""
        return torch.randn(rows, columns, device=self.device).to(self.type)

    def step(self) -> None:
        self.training.multiply()

    def answer(self, images: int) -> None:
        for _ in range(images // self.answering.batch):
            self.answering.multiply()


class Products:
    """Pairs of matrices, each with the number of its products and the matrix for the result."""

    def __init__(self, floor: Floor, batch: int, *, backward: bool) -> None:
        self.batch = batch
        hidden, rows, pixels = floor.work.hidden_size, floor.work.rows, floor.work.pixels
        gates, flat = 4 * hidden, batch * rows
        sizes = []  # (rows, inner, columns, times)
        for inputs in (pixels, hidden):
            # the state before the first row is zero, and needs no product
            sizes += [(flat, inputs, gates, 1), (batch, hidden, gates, rows - 1)]
            if backward:  # gradients of the state, the two kernels, and the upper layer's input
                sizes += [(batch, gates, hidden, rows - 1)]
                sizes += [(gates, batch * (rows - 1), hidden, 1), (gates, flat, inputs, 1)]
                sizes += [(flat, gates, hidden, 1)] if inputs == hidden else []
        sizes += [(batch, hidden, CLASSES, 1)]
        if backward:
            sizes += [(CLASSES, batch, hidden, 1), (batch, CLASSES, hidden, 1)]
        self.flops = sum(2 * a * b * c * times for a, b, c, times in sizes)
        with torch.inference_mode():
            self.pairs = [
                (floor.matrix(a, b), floor.matrix(b, c), floor.matrix(a, c), times)
                for a, b, c, times in sizes
            ]
        self.graph: torch.cuda.CUDAGraph | None = None
        if floor.device.type == "cuda":  # as one graph: single launches would wait for Python
            self.multiply()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.multiply()
            self.graph = graph

    @torch.inference_mode()
    def multiply(self) -> None:
        """Compute all products once; on a GPU as one CUDA graph."""
        if self.graph:
            self.graph.replay()
            return
        for left, right, product, times in self.pairs:
            for _ in range(times):
                torch.mm(left, right, out=product)


if __name__ == "__main__":
    run(Floor)
