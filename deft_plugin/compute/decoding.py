"""Images are decoded in threads, ahead of who wants them: Pillow decodes and resizes without holding Python's lock.

Threads need no shared memory, nothing that can be pickled and no guard of the main script, as processes would.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Key = TypeVar("Key")
Item = TypeVar("Item")
Batch = TypeVar("Batch")

BATCHES_AHEAD = 2


def num_decoders(device: str) -> int:
    """How many threads decode images: one beside the encoder on a CPU; a GPU wants to be fed by many.

    Parameters
    ----------
    device : str
    """
    return 1 if torch.device(device).type == "cpu" else min(8, os.cpu_count() or 1)


def decode_batches(
    load: Callable[[Key], Item],
    batches: Iterable[Sequence[Key]],
    *,
    collate: Callable[[list[Item]], Batch],
    num_threads: int,
) -> Generator[Batch]:
    """Load batches in threads, and give them in their order; at most two are made ahead.

    Parameters
    ----------
    load : callable
        Makes one item of a key; called from any thread, several at a time.
    batches : iterable of sequences of keys
    collate : callable
        Makes a batch of its items.
    num_threads : int
        1 or more. What comes out does not depend on it.

    Raises
    ------
    Exception
        What `load` raised, at the place of its batch. What has not begun by then is left out.
    """
    threads = ThreadPoolExecutor(num_threads, thread_name_prefix="deft-decoder")
    waiting: deque[Future[Batch]] = deque()

    def join(items: list[Future[Item]]) -> Batch:
        return collate([item.result() for item in items])

    try:
        for keys in batches:
            items = [threads.submit(load, key) for key in keys]
            # Threads take tasks in order: when this one begins, its items have begun, so it cannot wait for ever.
            waiting.append(threads.submit(join, items))
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
