"""Datasets: the samples of one set, which all tasks share, and their images, in memory or on disk.

`digits` comes with scikit-learn; `cifar10` and `cifar100` through torchvision, which downloads them; `imagenet` and
`imagefolder` are trees of train/<class>/* and val/<class>/*, the latter by a name of the user's choice. With `--size 0`
images stay on disk, as prepare_imagenet.py leaves them there; else they are decoded once, to one array.
"""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from info_geometry.script import REPOSITORY, InputError, arrays_in, shown, unknown
from supervised_imagenet import wordnet

LOADERS = {  # of datasets that fit into memory, from the folder --data-dir
    "digits": lambda folder: digits(),
    "cifar10": lambda folder: _cifar("cifar10", folder),
    "cifar100": lambda folder: _cifar("cifar100", folder),
}
FOLDERS = {"imagenet": 0, "imagefolder": 32}  # those that are trees of files, and their --size by default
NAMES = (*LOADERS, *FOLDERS)
MANIFEST = "manifest.npz"


@dataclass
class Split:
    labels: np.ndarray  # (N,) int64
    ids: list[str]  # what each sample is called, whatever its place in the array
    decode: Callable[[], np.ndarray] | None = None
    root: Path | None = None  # where images are files, which their ids name

    @property
    def paths(self):
        return [self.root / id for id in self.ids]

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
    family: str = ""  # where its tasks are: `imagenet` for a subset of that, else its name
    on_disk: bool = False

    @property
    def shape(self):
        """Of an image in memory: (channels, size, size)."""
        return self.train.images.shape[1:]

    @cached_property
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


def add_arguments(parser):
    """The options that choose a dataset, the same for every script."""
    parser.add_argument("--dataset", default="digits", help=f"{', '.join(NAMES)} (default: digits)")
    parser.add_argument(
        "--data-dir", type=Path, default=REPOSITORY / "data", help="where images are, or are downloaded to"
    )
    parser.add_argument("--name", help="what an imagefolder is called: letters, digits and hyphens")
    parser.add_argument(
        "--subset", metavar="NAME", help="says that --dataset imagenet has only some of the classes, and its name"
    )
    parser.add_argument(
        "--size",
        type=int,
        help="side in pixels to which the images of a folder are brought in memory, or 0 to read them from disk when "
        "they are wanted (default: 32 for an imagefolder, 0 for imagenet)",
    )
    parser.add_argument(
        "--skip-corrupt", action="store_true", help="leave out images that cannot be read, and say how many"
    )


def check_arguments(args):
    """The name of the dataset that the options choose; raises InputError if they choose none."""
    if args.dataset not in NAMES:
        raise unknown("dataset", args.dataset, NAMES)
    for option, dataset in (("name", "imagefolder"), ("subset", "imagenet")):
        name = getattr(args, option)
        if name is not None and args.dataset != dataset:
            raise InputError(f"--{option} {name}: goes with --dataset {dataset}")
        if args.dataset == dataset and not re.fullmatch(r"[A-Za-z0-9-]+", name or "") and (name or option == "name"):
            raise InputError(f"--{option} {name!r}: the name must be of letters, digits and hyphens")
        if name in NAMES:
            raise InputError(f"--{option} {name}: is the name of another dataset; choose one of your own")
    if args.dataset not in FOLDERS and (args.size is not None or args.skip_corrupt):
        option = "--skip-corrupt" if args.size is None else f"--size {args.size}"
        raise InputError(f"{option}: goes with --dataset {' or '.join(FOLDERS)}, whose images are files")
    if args.size and args.size < 8:
        raise InputError(f"--size {args.size}: images need 8 pixels or more, or 0 to stay on disk")
    if args.skip_corrupt and on_disk(args):
        raise InputError("--skip-corrupt: prepare_imagenet.py --skip-corrupt leaves images out that stay on disk")
    return args.name or args.subset or args.dataset


def on_disk(args):
    """Whether the chosen dataset's images stay on disk until they are wanted."""
    return args.dataset in FOLDERS and not (FOLDERS[args.dataset] if args.size is None else args.size)


def family_of(args):
    """Whose tasks the chosen dataset has: `imagenet` for a subset of that, else its name."""
    return "imagenet" if args.dataset == "imagenet" else check_arguments(args)


def load(args):
    """The dataset that the options choose (see `add_arguments`)."""
    name = check_arguments(args)
    if args.dataset in LOADERS:
        return LOADERS[args.dataset](args.data_dir)
    size = FOLDERS[args.dataset] if args.size is None else args.size
    return _folders(name, family_of(args), args.data_dir, size, bool(args.subset), args.skip_corrupt)


def class_names(args):
    """The classes of the chosen dataset, for which ImageNet's images need not be there, nor prepared."""
    if args.dataset != "imagenet":
        return load(args).classes
    if not args.subset:
        return wordnet.load().classes
    return check_classes(_subfolders(args.data_dir / "train"), args.data_dir / "train", is_subset=True)


def digits():
    """scikit-learn's handwritten digits, 8 x 8 pixels: 1000 for training and 797 to predict."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[:, None]
    halves = train_test_split(np.arange(len(images)), train_size=1000, stratify=digits.target, random_state=0)
    train, val = (Split(digits.target[i], [str(n) for n in i], lambda i=i: images[i]) for i in map(np.sort, halves))
    return Dataset("digits", [str(d) for d in range(10)], train, val, "digits")


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
    return Dataset(name, list(halves[0].classes), train, val, name)


def _folders(name, family, data_dir, size, is_subset, skip_corrupt):
    if (data_dir / MANIFEST).exists():
        classes, train, val = read_manifest(data_dir)
        if family == "imagenet" and classes != check_classes(classes, data_dir / MANIFEST, is_subset):
            raise InputError(f"{shown(data_dir / MANIFEST)}: classes are not in ImageNet's order; prepare images again")
    elif size:
        classes, train, val = read_tree(data_dir, family, is_subset)
    else:
        raise InputError(
            f"{shown(data_dir)}: has no {MANIFEST}; 01_training/prepare_imagenet.py prepares images that are "
            "read from disk, or --size 32 brings them all to 32 pixels in memory"
        )
    if size:
        _check_memory(len(train) + len(val), size, data_dir)
        for title, split in (("train", train), ("val", val)):
            _decode(split, size, title, skip_corrupt)
    return Dataset(name, classes, train, val, family, on_disk=not size)


def read_tree(data_dir, family, is_subset=False):
    """Classes and the two splits, yet without images, of a tree of train/<class>/* and val/<class>/*.

    ImageNet's classes (family `imagenet`) are in the order of its hierarchy, others in that of their names; samples are
    in the order of these and of files' names. Raises InputError for missing or additional classes.
    """
    found = {split: _subfolders(data_dir / split) for split in ("train", "val")}
    for one, other in (("train", "val"), ("val", "train")):
        if missing := sorted(set(found[one]) - set(found[other])):
            raise InputError(f"{shown(data_dir / other)}: has no class {missing[0]}, which {shown(data_dir / one)} has")
    classes = found["train"]
    if family == "imagenet":
        classes = check_classes(classes, data_dir / "train", is_subset)
    return classes, *(_files(data_dir / split, classes) for split in ("train", "val"))


def _subfolders(folder):
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise InputError(f"{shown(folder)}: not a tree of <class>/<image> ({error.strerror})") from error
    if not found:
        raise InputError(
            f"{shown(folder)}: holds no folders of classes, {shown(folder)}/<class>/<image>; "
            f"torchvision.datasets.ImageNet unpacks ImageNet's archives like that"
        )
    return found


def check_classes(found, path, is_subset):
    """The classes in the order of ImageNet's hierarchy; raises InputError if they are others, or too few."""
    known = wordnet.load().classes
    if strange := sorted(set(found) - set(known)):
        raise InputError(f"{shown(path)}: {strange[0]} is not a class of ImageNet; --dataset imagefolder takes any")
    missing = [synset for synset in known if synset not in set(found)]
    if missing and not is_subset:
        raise InputError(
            f"{shown(path)}: has no class {missing[0]}, and lacks {len(missing)} of {len(known)} in all; --subset NAME "
            "declares a dataset of some of ImageNet's classes"
        )
    return [synset for synset in known if synset in set(found)]


def _files(folder, classes):
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    try:
        listed = make_dataset(folder, {name: label for label, name in enumerate(classes)}, IMG_EXTENSIONS)
    except OSError as error:
        raise InputError(f"{shown(folder)}: not a tree of <class>/<image> ({error})") from error
    labels = np.array([label for _, label in listed], dtype=np.int64)
    return Split(labels, [os.path.relpath(path, folder) for path, _ in listed], root=folder)


def read_manifest(data_dir):
    """Classes and the two splits, yet without images, of a folder that prepare_imagenet.py made."""
    path = data_dir / MANIFEST
    try:
        with arrays_in(path) as manifest:
            classes = [str(name) for name in manifest["classes"]]
            splits = []
            for split in ("train", "val"):
                ids = [id.decode() for id in manifest[f"{split}_ids"].tolist()]
                if any(id.startswith("/") or ".." in id.split("/") for id in ids):
                    raise ValueError(f"an image of {split} lies elsewhere")
                labels = manifest[f"{split}_labels"].astype(np.int64)
                if len(labels) != len(ids) or not ((labels >= 0) & (labels < len(classes))).all():
                    raise ValueError(f"labels of {split} do not fit its images and classes")
                splits.append(Split(labels, ids, root=data_dir / split))
    except Exception as error:  # whatever the bytes of a file that is no manifest may lead to
        raise InputError(f"{shown(path)}: not a manifest of images ({error}); prepare the images again") from error
    return classes, *splits


def _check_memory(n_images, size, data_dir):
    needed = n_images * 3 * size**2 * int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # each process has them
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * memory:
        raise InputError(
            f"{shown(data_dir)}: {n_images} images of {size} pixels take {needed / 1e9:.0f} GB decoded, more than this "
            f"machine's memory of {memory / 1e9:.0f} GB; choose a smaller --size, or --size 0 to leave them on disk"
        )


def _decode(split, size, title, skip_corrupt):
    """Let a split decode its images when they are wanted, or, to leave out those that cannot be read, now."""
    from supervised_imagenet import images

    if not skip_corrupt:
        split.decode = lambda: images.decoded(split.paths, size, title)
        return
    corrupt = []
    found = images.decoded(split.paths, size, title, corrupt)
    if corrupt:
        warnings.warn(
            f"left out {len(corrupt)} of {len(found)} images of {title} that cannot be read, the first being "
            f"{shown(split.paths[min(corrupt)])}",
            stacklevel=2,
        )
    kept = np.setdiff1d(np.arange(len(found)), corrupt)
    found, split.labels = found[kept], split.labels[kept]
    split.ids = [split.ids[i] for i in kept]
    split.decode = lambda: found
