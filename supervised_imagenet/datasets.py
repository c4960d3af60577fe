"""Datasets: images decoded once, as one array that all tasks share, and the batches that networks see.

`digits` comes with scikit-learn; `cifar10` and `cifar100` through torchvision, which downloads them; and
`imagefolder` is any tree of train/<class>/* and val/<class>/*, by a name of the user's choice.
"""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from info_geometry.script import REPOSITORY, InputError, shown, unknown

NAMES = ("digits", "cifar10", "cifar100", "imagefolder")


@dataclass
class Split:
    labels: np.ndarray  # (N,) int64
    ids: list[str]  # what each sample is called, whatever its place in the array
    decode: Callable[[], np.ndarray]

    @cached_property
    def images(self):
        """(N, channels, size, size) uint8, decoded when first asked for."""
        return self.decode()

    def __len__(self):
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    name: str
    classes: list[str]
    train: Split
    val: Split
    augmented: bool  # whether training images are cropped and flipped at random

    def statistics(self):
        """Mean and standard deviation of each channel over the training images, for pixels in [0, 1]."""
        images = self.train.images
        counts = np.zeros((images.shape[1], 256))
        for start in range(0, len(images), 1000):
            for channel, count in enumerate(counts):
                count += np.bincount(images[start : start + 1000, channel].ravel(), minlength=256)
        counts /= counts[0].sum()
        values = np.arange(256) / 255
        mean = counts @ values
        return mean, np.sqrt(np.maximum(counts @ values**2 - mean**2, 1e-12))


class Batches:
    """The images of a split on a device, as one uint8 tensor, and normalised batches of them.

    The crop is padded by an eighth of the image's side and the flip is horizontal, as is usual for CIFAR.
    They draw from torch's global random state.
    """

    def __init__(self, split, statistics, device):
        import torch

        self.images = torch.from_numpy(split.images).to(device)
        mean, std = (torch.tensor(s, dtype=torch.float32, device=device)[:, None, None] for s in statistics)
        self.scale, self.shift = 1 / (255 * std), mean / std

    def __len__(self):
        return len(self.images)

    def get(self, indices, augmented=False):
        """Images at `indices` (a tensor or a slice): (B, channels, size, size) float32."""
        images = self.images[indices]
        if augmented:
            images = crop_and_flip(images)
        return images * self.scale - self.shift


def crop_and_flip(images):
    """Each image (B, channels, S, S) shifted by up to S/8 either way, with black around, and flipped or not."""
    import torch
    import torch.nn.functional as F

    n, _, size, _ = images.shape
    pad, device = size // 8, images.device
    row, column = torch.randint(2 * pad + 1, (2, n, 1), device=device)
    span = torch.arange(size, device=device)
    flip = torch.rand(n, 1, device=device) < 0.5
    rows, columns = row + span, column + torch.where(flip, span.flip(0), span)
    padded = F.pad(images, (pad,) * 4)
    sample, channel = torch.arange(n, device=device), torch.arange(images.shape[1], device=device)
    return padded[sample[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def add_arguments(parser):
    """The options that choose a dataset, the same for every script."""
    parser.add_argument("--dataset", default="digits", help=f"{', '.join(NAMES)} (default: digits)")
    parser.add_argument(
        "--data-dir", type=Path, default=REPOSITORY / "data", help="where images are, or are downloaded to"
    )
    parser.add_argument("--name", help="what an imagefolder is called: letters, digits and hyphens")
    parser.add_argument(
        "--size", type=int, default=32, help="side in pixels to which an imagefolder's images are brought"
    )


def check_arguments(args):
    """The name of the dataset that the options choose; raises InputError if they choose none."""
    if args.dataset not in NAMES:
        raise unknown("dataset", args.dataset, NAMES)
    if args.dataset != "imagefolder":
        return args.dataset
    if not re.fullmatch(r"[A-Za-z0-9-]+", args.name or ""):
        raise InputError(f"--name {args.name!r}: an imagefolder needs a name of letters, digits and hyphens")
    if args.size < 8:
        raise InputError(f"--size {args.size}: images need 8 pixels or more")
    return args.name


def load(args):
    """The dataset that the options choose (see `add_arguments`)."""
    name = check_arguments(args)
    if args.dataset == "digits":
        return _digits()
    if args.dataset == "imagefolder":
        return _imagefolder(name, args.data_dir, args.size)
    return _cifar(name, args.data_dir)


def _digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[:, None]
    halves = train_test_split(np.arange(len(images)), train_size=1000, stratify=digits.target, random_state=0)
    train, val = (Split(digits.target[i], [str(n) for n in i], lambda i=i: images[i]) for i in map(np.sort, halves))
    return Dataset("digits", [str(d) for d in range(10)], train, val, augmented=False)


def _cifar(name, data_dir):
    import torchvision

    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    try:
        # torchvision checks the MD5 sums of the published files before it reads them
        halves = [kind(data_dir, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} is not in {shown(data_dir)} and its download failed ({error}); "
            f"put the file {kind.filename} from {kind.url} there, or name its folder with --data-dir"
        ) from error
    train, val = (
        Split(
            np.array(half.targets, dtype=np.int64),
            [str(n) for n in range(len(half.targets))],
            lambda half=half: np.ascontiguousarray(half.data.transpose(0, 3, 1, 2)),
        )
        for half in halves
    )
    return Dataset(name, list(halves[0].classes), train, val, augmented=True)


def _imagefolder(name, data_dir, size):
    train, val = (_listing(data_dir / split) for split in ("train", "val"))
    for one, other in ((train, val), (val, train)):
        missing = sorted(set(one.classes) - set(other.classes))
        if missing:
            raise InputError(f"{shown(other.root)}: has no class {missing[0]}, which {shown(one.root)} has")
    _check_memory(len(train) + len(val), size, data_dir)
    return Dataset(name, train.classes, _split(train, size), _split(val, size), augmented=True)


def _listing(folder):
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(folder)
    except OSError as error:
        raise InputError(f"{shown(folder)}: not a tree of <class>/<image> ({error})") from error


def _check_memory(n_images, size, data_dir):
    needed = n_images * 3 * size**2
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * memory:
        raise InputError(
            f"{shown(data_dir)}: {n_images} images of {size} pixels take {needed / 1e9:.0f} GB decoded, more "
            f"than this machine's memory of {memory / 1e9:.0f} GB; choose a smaller --size"
        )


def _split(listing, size):
    ids = [str(Path(path).relative_to(listing.root)) for path, _ in listing.samples]
    return Split(np.array(listing.targets, dtype=np.int64), ids, lambda: _decoded(listing, size))


def _decoded(listing, size):
    images = np.empty((len(listing), 3, size, size), dtype=np.uint8)

    def decode(n):
        images[n] = _decode(listing.samples[n][0], size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(decode, range(len(listing)))
        for _ in tqdm(done, desc=f"decoding {Path(listing.root).name}", total=len(listing), disable=None):
            pass
    return images


def _decode(path, size):
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # more than 8 bits, which convert() would clip
                pixels = np.asarray(image)
                if pixels.dtype.kind == "f" or pixels.max() >= 1 << 16:
                    raise ValueError("32 bits a pixel")
                image = Image.fromarray((pixels >> 8).astype(np.uint8))
            image = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{shown(path)}: not a readable image ({error}); mend or remove it") from error
    return np.asarray(image).transpose(2, 0, 1)
