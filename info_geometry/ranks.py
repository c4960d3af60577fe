"""Several processes that share the samples of one computation, started by torchrun; one process without it."""

import contextlib
import os

import numpy as np


@contextlib.contextmanager
def joined(device="cpu"):
    """Join the processes that torchrun started, for as long as the block runs; yields this one's rank."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    import torch.distributed as dist

    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield dist.get_rank()
        dist.barrier()  # none leaves while another needs it
    finally:
        dist.destroy_process_group()


def _group():
    import sys

    if "torch" not in sys.modules:
        return None
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None


def rank():
    """This process's number, 0 for one alone."""
    group = _group()
    return group.get_rank() if group else 0


def share(n_samples, size):
    """The samples (first, stop) of this process: whole blocks of `size`, which are the same however many share them."""
    group = _group()
    count, index = (group.get_world_size(), group.get_rank()) if group else (1, 0)
    n_blocks = -(-n_samples // size)
    first, stop = (min(n_samples, n_blocks * k // count * size) for k in (index, index + 1))
    return first, stop


def add_up(array):
    """Add up an array over all processes, in place."""
    group = _group()
    if group:
        import torch

        on_gpu = group.get_backend() == "nccl"
        found = torch.from_numpy(np.asarray(array))
        found = found.cuda() if on_gpu else found
        group.all_reduce(found)
        if on_gpu:
            array[...] = found.cpu().numpy()
