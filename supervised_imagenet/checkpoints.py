"""Checkpoints: when they are taken, how they are written, and how anybody's are read.

A run is a folder `<dataset>_<task>/<seed>/` with `settings.json`, one `checkpoint_<n>.pt` for each checkpoint
(`model`, `epoch`, `step`, and how many `images` it has seen) and, until it is done, `resume.pt`, from which a killed
run goes on.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from info_geometry.script import InputError, natural, replacing, shown
from supervised_imagenet import networks

WEIGHTS_KEYS = ("model", "state_dict", "model_state_dict", "net", "network", "weights")


def schedule(epochs, steps_per_epoch, dense_epochs=5, dense=5):
    """The steps after which checkpoints are taken, ascending, from 0, the initial network.

    `dense` an epoch for the first `dense_epochs`, when networks move fastest, then one an epoch.
    """
    early = [round(i * steps_per_epoch / dense) for i in range(dense * min(dense_epochs, epochs) + 1)]
    late = [epoch * steps_per_epoch for epoch in range(dense_epochs + 1, epochs + 1)]
    return sorted({*early, *late})


def run_folder(root, dataset, task, seed):
    return Path(root) / f"{dataset}_{task}" / str(seed)


def path_of(folder, index):
    """Where checkpoint `index` of a run is stored."""
    return Path(folder) / f"checkpoint_{index:03d}.pt"


def listed(folder):
    """The checkpoint files of a run, in the order of the numbers in their names."""
    if not Path(folder).is_dir():
        raise InputError(f"{shown(folder)}: no such folder of checkpoints")
    paths = [p for p in Path(folder).iterdir() if p.suffix in (".pt", ".pth") and p.name != "resume.pt"]
    return sorted((p for p in paths if not p.name.startswith(".")), key=natural)


def save(path, **content):
    """Store tensors, plain numbers and strings, so that a killed process leaves a whole file or none."""
    # through memory, since torch hides why its own writing failed
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def load(path):
    """What a checkpoint file holds; nothing but tensors and plain values is ever unpickled."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such checkpoint") from None
    except Exception as error:  # whatever the bytes of a file that is no checkpoint may lead to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{shown(path)}: not a checkpoint of tensors and plain values ({reason})") from error


def sha256(path):
    """The hash of a checkpoint file, by which predictions know what they were made from."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{shown(path)}: not readable ({error.strerror or error})") from error


def weights(content, path):
    """The weights in a loaded checkpoint: possibly a dict inside it, without the prefixes of wrappers."""
    while isinstance(content, dict):
        inside = [content[key] for key in WEIGHTS_KEYS if isinstance(content.get(key), dict)]
        if not inside:
            break
        content = inside[0]
    state = content.items() if isinstance(content, dict) else ()
    state = {_unwrapped(k): v for k, v in state if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not state:
        raise InputError(f"{shown(path)}: holds no weights, neither as a dict nor under {WEIGHTS_KEYS}")
    return state


def _unwrapped(key):
    # wrappers nest, such as torch.compile around DistributedDataParallel
    while key.startswith(("module.", "_orig_mod.")):
        key = key.partition(".")[2]
    return key


class Source(NamedTuple):
    """A checkpoint that can be loaded: `id` says which it is, and `name` what to call it."""

    id: str
    name: str
    load: Callable[[], dict]


def sources(path, arch, in_channels):
    """The checkpoints in a folder, in the order of their numbers, or the one that is a file, or, if `path` is
    "pretrained", the weights that timm has for `arch`."""
    if path == "pretrained":
        start = Start(path, arch, in_channels)
        return [Source(start.id, start.id, lambda: start.state)]
    files = [Path(path)] if Path(path).is_file() else listed(path)
    if not files:
        raise InputError(f"{shown(path)}: holds no checkpoints (.pt or .pth)")
    return [Source(sha256(file), str(file), lambda file=file: load(file)) for file in files]


class Start:
    """Weights to start from: those of a file, or the ones that timm has for `arch` if `source` is "pretrained".

    `id` says which they are.
    """

    def __init__(self, source, arch, in_channels):
        self.path = source
        if source == "pretrained":
            network = networks.create(arch, None, in_channels, pretrained=True)
            config = network.pretrained_cfg
            self.id = f"timm {config['architecture']}.{config['tag']}"
            self.state = network.state_dict()
        else:
            self.id = sha256(source)
            self.state = weights(load(source), source)
        self.fill(networks.create(arch, 2, in_channels))  # said now if they do not fit

    def fill(self, network):
        """Give a network these weights; the last layer only where it has as many classes."""
        state, wanted = _named_as(network, self.state), network.state_dict()
        for name in filter(lambda name: name.startswith(_heads(network)), wanted):
            if name not in state or state[name].shape != wanted[name].shape:
                state[name] = wanted[name]
        _fill(network, state, self.path)


def load_features(network, state, path):
    """Fill a network made without a head from a checkpoint's weights, of which the last layer is left out.

    Raises InputError naming the first tensors that do not fit.
    """
    wanted = network.state_dict()
    # without a last layer, timm may leave out what stands around it too, such as a norm
    heads = {name.partition(".")[0] for name in networks.classifier_names(network)}
    state = _named_as(network, state)
    _fill(network, {k: v for k, v in state.items() if k in wanted or k.partition(".")[0] not in heads}, path)


def _named_as(network, state):
    """Weights under the names that a network has for them: their own, or, where few of these are known to it, those of
    its tensors of the same shapes in the same order, since other implementations of a network name them otherwise."""
    counters = "num_batches_tracked"  # which some have and some do not
    wanted, heads = network.state_dict(), _heads(network)
    names = [name for name in wanted if not name.endswith(counters)]
    body = [name for name in names if not name.startswith(heads)]
    tensors = [tensor for name, tensor in state.items() if not name.endswith(counters)]
    if sum(name in state for name in body) > len(body) / 2 or not 0 <= len(tensors) - len(body) <= 2:
        return dict(state)
    found = dict(zip(names, tensors, strict=False))
    if any(found[name].shape != wanted[name].shape for name in body):
        return dict(state)
    return found | {name: tensor for name, tensor in wanted.items() if name.endswith(counters)}


def _heads(network):
    return tuple(f"{name}." for name in networks.classifier_names(network))


def _fill(network, state, path):
    wanted = network.state_dict()
    faults = [f"{key} is missing" for key in wanted if key not in state]
    faults += [f"{key} is not in the network" for key in state if key not in wanted]
    faults += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults:
        raise InputError(f"{shown(path)}: weights of another network: {'; '.join(faults[:3])}")
    network.load_state_dict(state)
