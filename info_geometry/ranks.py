"""Several processes that share the samples of one computation, started by torchrun; one process without it."""

import contextlib
import datetime
import os
import sys
from pathlib import Path

import numpy as np

from info_geometry.script import InputError, held, shown, writing


@contextlib.contextmanager
def joined(device="cpu"):
    """Join the processes that torchrun started, for as long as the block runs; yields this one's device, as PyTorch
    calls it: with several GPUs on a machine each process has one."""
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    if alone and device == "cpu":
        yield device
        return
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (device != "cpu" and not (torch.cuda.is_available() and f"{number}0".isdigit())):
        raise InputError(f"no device {device} here; --device takes cpu, and where there is a GPU cuda, or cuda:1")
    if kind == "cuda":
        number = os.environ.get("LOCAL_RANK", number or "0")
        if int(number) >= torch.cuda.device_count():
            raise InputError(f"no GPU {number} here, of {torch.cuda.device_count()}; start as many processes as GPUs")
        device = f"cuda:{number}"
        torch.cuda.set_device(device)
    if alone:
        yield device
        return
    try:
        # one may wait long for another's share of the work; where one fails, torchrun ends all
        week = datetime.timedelta(days=7)
        torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=week)
    except (RuntimeError, ValueError) as error:
        place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"cannot meet the other processes at {place} ({reason}); torchrun --standalone finds a free port, and "
            "--master-port names one"
        ) from error
    yield device  # where an error goes through, torchrun ends the others
    torch.distributed.destroy_process_group()


def _group():
    torch = sys.modules.get("torch")  # not to be imported for this
    if not torch or not torch.distributed.is_available():
        return None
    return torch.distributed if torch.distributed.is_initialized() else None


def rank():
    """This process's number, 0 for one alone."""
    group = _group()
    return group.get_rank() if group else 0


def count():
    """How many processes there are."""
    group = _group()
    return group.get_world_size() if group else 1


def share(n_samples, size):
    """The samples (first, stop) of this process: whole blocks of `size`, which are the same however many share them."""
    n_blocks = -(-n_samples // size)
    first, stop = (min(n_samples, n_blocks * k // count() * size) for k in (rank(), rank() + 1))
    return first, stop


def least(number):
    """The least of the numbers that the processes have."""
    numbers = np.zeros(count())
    numbers[rank()] = number
    add_up(numbers)
    return int(numbers.min())


def add_up(array):
    """Add up an array over all processes, in place."""
    group = _group()
    if group:
        import torch

        on_gpu = group.get_backend() == "nccl"
        found = torch.from_numpy(np.asarray(array))
        found = found.cuda() if on_gpu else found
        group.all_reduce(found)  # without a copy, since a matrix of distances may be most of the memory
        if on_gpu:
            array[...] = found.cpu().numpy()


def total(tensor):
    """The sum of a tensor over all processes."""
    tensor = tensor.clone()
    add_up_all([tensor])
    return tensor


def add_up_all(tensors):
    """Add up tensors over all processes, in place and in one message."""
    group = _group()
    tensors = list(tensors) if group else []
    if tensors:
        import torch

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        group.all_reduce(flat)
        for tensor, found in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(found.view_as(tensor))


def spread(tensors):
    """Give all processes the tensors of the first one, in place."""
    group = _group()
    for tensor in tensors if group else ():
        group.broadcast(tensor, 0)


def agree(number, path):
    """Raise InputError unless all processes have found the same number in `path`, as on several machines they may
    not."""
    if least(number) != number:
        raise InputError(f"{path}: the processes do not see the same files there; start again when they do")


@contextlib.contextmanager
def alone(path):
    """Keep all processes but these from writing `path` bit by bit, as long as the block runs; raises InputError where
    others are at it. Folders that are made for it, and left empty, are gone afterwards."""
    path = Path(path)
    lock = path.with_name(f".{path.stem}.lock")
    with contextlib.ExitStack() as stack:
        if rank() == 0:
            for folder in reversed(lock.parents):
                if not folder.exists():
                    stack.callback(_remove_if_empty, folder)
            with writing(path):
                lock.parent.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(held(lock, wait=False))
                except BlockingIOError:
                    fault = f"{shown(path)}: another process is writing it; wait until it has ended, or stop it"
                    raise InputError(fault) from None
        wait()
        yield


def _remove_if_empty(folder):
    with contextlib.suppress(OSError):
        folder.rmdir()


def wait():
    """Go on when all processes have come here."""
    group = _group()
    if group:
        group.barrier()
