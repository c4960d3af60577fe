"""Images per second from disk: ours beside torchvision's ImageFolder and PyTorch's DataLoader, on the same files.

    python benchmarks/images_from_disk.py
    python benchmarks/images_from_disk.py --data-dir ~/imagenet --workers 2

prints a section of README.md, which `make benchmark` writes there. Without a folder of images it makes one, of
crops from the two photographs that come with scikit-learn.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from supervised_imagenet import batches, datasets

BATCH, SIZES, EVALUATION, CROP = 64, (160, 192), 256, 224 / 256


def photographs(folder, n_images=2048):
    """A tree of JPEG files of 500 by 375 pixels, as large as ImageNet's are after preparation."""
    from sklearn.datasets import load_sample_images

    rng, photos = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images]
    for split, n in (("train", n_images), ("val", n_images // 4)):
        (folder / split / "photograph").mkdir(parents=True)
        for i in range(n):
            photo, (x, y) = photos[i % 2], rng.integers(0, (140, 52))
            photo = photo.crop((x, y, x + 500, y + 375)).rotate(int(rng.integers(4)) * 90, expand=True)
            photo.save(folder / split / "photograph" / f"{i:04d}.jpg", quality=90)


def theirs(folder, size, workers, train):
    """torchvision's own way, as in its reference scripts."""
    normalise = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    if train:
        view = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *normalise]
    else:
        view = [transforms.Resize(round(size / CROP)), transforms.CenterCrop(size), *normalise]
    files = ImageFolder(folder / ("train" if train else "val"), transforms.Compose(view))
    for x, _ in torch.utils.data.DataLoader(files, BATCH, shuffle=train, num_workers=workers):
        yield len(x)


def ours(split, size, workers, train):
    view = {"arch": "resnetblur50", "eval_size": size, "eval_crop": CROP}
    found = datasets.Dataset("photographs", [], split, split, on_disk=True)
    source = batches.of(found, split, view, torch.device("cpu"), workers)
    if not train:
        yield from map(len, source.ordered(BATCH))
        return
    order = np.random.default_rng(0).permutation(len(split))
    requests = [batches.Request(order[i : i + BATCH], i, size) for i in range(0, len(order), BATCH)]
    yield from (len(x) for x, _ in source.augmented(requests))


def rate(make, *arguments):
    """Images per second of the best of three passes, the start of workers included."""
    seconds, n = [], 0
    for _ in range(3):
        start = time.perf_counter()
        n = sum(make(*arguments))
        seconds.append(time.perf_counter() - start)
    return n / min(seconds)


def shares(paths, size):
    """Milliseconds an image that reading, decoding and resizing take one process, as workers are."""
    torch.set_num_threads(1)
    paths = paths[:512]

    def milliseconds(work):
        start = time.perf_counter()
        for path in paths:
            work(path)
        return 1000 * (time.perf_counter() - start) / len(paths)

    kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    return {
        f"reading it, {kilobytes:.0f} kB in the cache of the disk": milliseconds(Path.read_bytes),
        "and decoding it, whole": milliseconds(lambda path: Image.open(path).load()),
        f"a cropped view of {size} pixels, in all": milliseconds(lambda path: batches.view(path, size, CROP, (0, 1))),
        f"a central view of {EVALUATION} pixels, in all": milliseconds(
            lambda path: batches.view(path, EVALUATION, CROP)
        ),
    }


def report(folder=None, workers=None):
    """The section of the README."""
    workers = workers or os.cpu_count()
    with tempfile.TemporaryDirectory() as made:
        if not folder:
            photographs(folder := Path(made))
        _, train, val = datasets.read_tree(folder, "imagefolder")
        rows = []
        for title, split, size in (
            *((f"training, {size} pixels", train, size) for size in SIZES),
            (f"evaluation, {EVALUATION} pixels", val, EVALUATION),
        ):
            before = rate(theirs, folder, size, workers, split is train)
            after = rate(ours, split, size, workers, split is train)
            rows.append(f"| {title} | {before:.0f} | {after:.0f} | {after / before:.2f} |\n")
        parts = [f"| {title} | {value:.2f} |\n" for title, value in shares(train.paths, SIZES[0]).items()]
    return f"""## Images from disk

{len(train)} JPEG files of 500 by 375 pixels for training and {len(val)} for evaluation, batches of {BATCH}, {workers}
workers, from files to normalised batches on the processor: `supervised_imagenet/batches.py` beside torchvision's
ImageFolder and transforms with PyTorch's DataLoader, on the same files.

| images per second | ImageFolder, DataLoader | ours | times |
| --- | ---: | ---: | ---: |
{"".join(rows)}
Where the time goes: milliseconds an image that one process takes.

| | milliseconds |
| --- | ---: |
{"".join(parts)}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="a tree of train/<class>/* and val/<class>/*")
    parser.add_argument("--workers", type=int, help="(default: one a core)")
    args = parser.parse_args()
    print(report(args.data_dir, args.workers))


if __name__ == "__main__":
    main()
