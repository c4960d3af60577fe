"""Batches of images on a device: of small ones that stay there, or of large ones that are read from disk.

Both kinds have `ordered`, which yields normalised images in the order of the samples, and `augmented`, which yields
them cropped and flipped at random as `Request`s ask. All that is random in a request comes from its key, so that it
does not matter who fulfils it, and when.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from info_geometry.script import InputError, shown
from supervised_imagenet import networks
from supervised_imagenet.images import FAULTS, share_of_cores


class Request(NamedTuple):
    indices: np.ndarray  # (B,) of samples
    key: int  # that all random numbers are drawn from
    size: int  # side of the images wanted, which those in memory have anyhow


class _Batches:
    def __init__(self, split, statistics, device):
        self.split, self.device = split, device
        mean, std = (torch.tensor(s, dtype=torch.float32, device=device)[:, None, None] for s in statistics)
        self.scale, self.shift = 1 / (255 * std), mean / std

    def __len__(self):
        return len(self.split)

    def normalised(self, images):
        """(B, channels, S, S) uint8 to float32 of mean 0 and standard deviation 1."""
        return images.float().mul_(self.scale).sub_(self.shift)


class InMemory(_Batches):
    """The images of a split as one uint8 tensor on the device.

    `augmentation` is `none` or `shift`: padded by an eighth of the side, cropped and flipped, as is usual for CIFAR.
    """

    def __init__(self, split, statistics, device, augmentation="none"):
        super().__init__(split, statistics, device)
        self.images, self.shifted = torch.from_numpy(split.images).to(device), augmentation == "shift"

    def ordered(self, batch_size, skip=0, indices=None):
        """Images (B, channels, S, S) of all samples, or of those at `indices`, without the first `skip` batches."""
        for start in range(skip * batch_size, len(self) if indices is None else len(indices), batch_size):
            batch = slice(start, start + batch_size)
            yield self.normalised(self.images[batch if indices is None else torch.as_tensor(indices[batch])])

    def augmented(self, requests):
        """For each request its images (B, channels, S, S) and their indices (B,)."""
        for request in requests:
            images = self.images[torch.as_tensor(request.indices, device=self.device)]
            if self.shifted:
                images = crop_and_flip(images, torch.Generator(self.device).manual_seed(request.key))
            yield self.normalised(images), request.indices


def of(dataset, split, recipe, device, workers=None):
    """The batches of a dataset's split for the network and the sizes of a recipe.

    ImageNet's images are normalised as timm has it for that network, others by the dataset's own statistics.
    """
    if dataset.family == "imagenet" or dataset.on_disk:
        statistics = networks.normalisation(recipe["arch"])
    else:
        statistics = dataset.statistics
    if dataset.on_disk:
        return OnDisk(split, statistics, device, recipe["eval_size"], recipe["eval_crop"], workers)
    return InMemory(split, statistics, device, recipe.get("augmentation"))


def crop_and_flip(images, generator):
    """Each image (B, channels, S, S) shifted by up to S/8 either way, with black around, and flipped or not."""
    n, _, size, _ = images.shape
    pad, device = size // 8, images.device
    row, column = torch.randint(2 * pad + 1, (2, n, 1), device=device, generator=generator)
    span = torch.arange(size, device=device)
    flip = torch.rand(n, 1, device=device, generator=generator) < 0.5
    rows, columns = row + span, column + torch.where(flip, span.flip(0), span)
    padded = F.pad(images, (pad,) * 4)
    sample, channel = torch.arange(n, device=device), torch.arange(images.shape[1], device=device)
    return padded[sample[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]]


class OnDisk(_Batches):
    """The images of a split, read by `workers` processes when they are wanted; normalised on the device.

    In order they are the central square of `crop` times the shorter side, at `size` pixels; augmented, crops of random
    area (8% to all of it) and shape, flipped or not: "Going deeper with convolutions", arXiv 1409.4842, section 6.
    """

    def __init__(self, split, statistics, device, size, crop, workers=None):
        super().__init__(split, statistics, device)
        self.size, self.views = size, _Views(split, crop)
        self.workers = share_of_cores() if workers is None else workers

    def ordered(self, batch_size, skip=0, indices=None):
        """Images (B, 3, size, size) of all samples, or of those at `indices`, without the first `skip` batches."""
        indices = np.arange(len(self)) if indices is None else indices
        starts = range(skip * batch_size, len(indices), batch_size)
        batches = ([(i, self.size, None) for i in indices[s : s + batch_size]] for s in starts)
        return (images for images, _ in self._loaded(batches))

    def augmented(self, requests):
        """For each request its images (B, 3, S, S), of its size S, and their indices (B,)."""
        return self._loaded([(i, r.size, (r.key, int(i))) for i in r.indices] for r in requests)

    def _loaded(self, batches):
        loader = torch.utils.data.DataLoader(
            self.views,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=_stacked,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),  # else it draws from the global one
        )
        for found in loader:
            if isinstance(found, InputError):
                raise found
            images, indices = found  # channels last, as networks like them
            yield self.normalised(images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)), indices


class _Views(torch.utils.data.Dataset):
    """What workers see: where images are, and how to read one of them."""

    def __init__(self, split, crop):
        # bytes in one array: a million strings would be copied to each worker as it counts references to them
        self.root, self.ids, self.crop = str(split.root), np.array([id.encode() for id in split.ids]), crop

    def __getitem__(self, wanted):
        index, size, key = wanted
        path = f"{self.root}/{self.ids[index].decode()}"
        try:
            return view(path, size, self.crop, key).permute(1, 2, 0), index
        except FAULTS as error:
            # raised in the worker it would arrive as text
            return InputError(f"{shown(path)}: not a readable image ({error}); prepare the images again")


def _stacked(items):
    faults = [item for item in items if isinstance(item, InputError)]
    if faults:
        return faults[0]
    images, indices = zip(*items, strict=True)
    return torch.stack(images), np.array(indices)


def view(path, size, crop, key=None):
    """The JPEG image at `path` as (3, size, size) uint8: its centre (see `OnDisk`), or, with a key, what that draws."""
    flip = False
    with Image.open(path) as image:
        whole = np.array(image.size[::-1])
        if key is None:
            shape = np.repeat(round(crop * whole.min()), 2)
            corner = (whole - shape) // 2
        else:
            corner, shape, flip = _random_crop(image, key)
            # decoded at 1/2, 1/4 or 1/8 of its size where that suffices; what is half a pixel to a random crop
            image.draft("RGB", tuple(int(length) for length in np.ceil(whole * size / shape)[::-1]))
        pixels = torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)
    scale = np.array(pixels.shape[1:]) / whole
    (top, left), (height, width) = (np.rint(values * scale).astype(int) for values in (corner, shape))
    part = pixels[None, :, top : top + max(height, 1), left : left + max(width, 1)]
    # PyTorch resizes bytes in less time than Pillow
    found = F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
    return found.flip(2) if flip else found


def _random_crop(image, key):
    """Corner (top, left), shape (height, width) and whether to flip."""
    from torchvision.transforms import RandomResizedCrop

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        box = RandomResizedCrop.get_params(image, scale=(0.08, 1), ratio=(3 / 4, 4 / 3))
        flip = bool(torch.rand(()) < 0.5)
    return np.array(box[:2]), np.array(box[2:]), flip
