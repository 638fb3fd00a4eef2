"""Classify images that wait together in one forward pass, beside the server's event loop.

T rows of D pixels, C classes
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mnist_lstm.data import photo, picture_file
from mnist_lstm.learning.model import infer
from mnist_lstm.runs.servable import Servable

TOGETHER = 32  # images in one pass at most; larger ones make the first of them wait longer
SLOW = 1000  # images in one pass of a large request


class BusyClassifier:
    """A model for many requests at once.

    One thread computes the model for single images: while it works, others arrive, and it takes
    all of them next. Another thread does what takes long. Two threads prepare large pictures: one
    takes 0.8 GB, so not all may be prepared at once.
    """

    def __init__(self, served: Servable) -> None:
        self.model = served.model.eval()
        self.form = photo.form_of(served.dataset, *served.image)
        # torch's number of threads is one of each thread: with more than one here, they would wait
        # for each other in loops that keep the cores from all other work
        alone = partial(torch.set_num_threads, 1)
        self._single = ThreadPoolExecutor(1, "classify", alone)
        self._large = ThreadPoolExecutor(1, "classify-many", alone)
        self._pictures = ThreadPoolExecutor(2, "prepare")
        self._waiting: list[tuple[Tensor, asyncio.Future[Tensor]]] = []
        self._work: asyncio.Task[None] | None = None

    async def prepared(self, content: bytes) -> photo.Reading:
        """A picture file in the model's form. Raises UserError, as photo.read_bytes does."""
        if picture_file.is_small(content):  # to hand it to a thread takes longer than to read it
            return photo.read_bytes(content, self.form)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pictures, photo.read_bytes, content, self.form)

    async def logits(self, images: Tensor) -> Tensor:
        """Logits of images of pixels 0–255, (N, T, D) -> (N, C)."""
        loop = asyncio.get_running_loop()
        if len(images) > TOGETHER:
            return await loop.run_in_executor(self._large, infer, self.model, images, SLOW)
        future: asyncio.Future[Tensor] = loop.create_future()
        self._waiting.append((images, future))
        if self._work is None:
            self._work = loop.create_task(self._classify_all())
        return await future

    async def after_each_row(self, image: np.ndarray) -> Tensor:
        """Logits after each row of one image, (T, D) -> (T, C)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._large, self._row_by_row, image)

    @torch.inference_mode()
    def _row_by_row(self, image: np.ndarray) -> Tensor:
        return self.model.after_each_row(torch.from_numpy(image)[None])[0]

    async def _classify_all(self) -> None:
        """Take all images that wait, and the next ones, until none wait."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._take()
                images = [image for image, _ in batch]
                try:
                    logits = await loop.run_in_executor(self._single, self._together, images)
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), answer in zip(batch, logits, strict=True):
                    if not future.done():  # its client may have gone
                        future.set_result(answer)
        finally:
            self._work = None

    def _take(self) -> list[tuple[Tensor, "asyncio.Future[Tensor]"]]:
        count, images = 0, 0
        while count < len(self._waiting):
            images += len(self._waiting[count][0])
            if count and images > TOGETHER:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _together(self, images: Sequence[Tensor]) -> Sequence[Tensor]:
        return infer(self.model, torch.cat(list(images)), TOGETHER).split(
            [len(one) for one in images]
        )
