"""Prepare a copy of ImageNet, or of any tree of images, that all tasks read: smaller, in RGB, with a manifest.

    python supervised_imagenet/01_training/prepare_imagenet.py ~/ILSVRC2012 ~/imagenet

reads SOURCE/{train,val}/<class>/* and writes TARGET/{train,val}/<class>/*, JPEG files whose longest side is 500 pixels
at most (those that are like that are copied), and TARGET/manifest.npz: for each split `ids`, `labels`, `sizes` (width,
height), `bytes` and `sha256`, in the order of the samples. Started again after a stop it does what is missing; with the
manifest there, it makes anew files that are not what the manifest says.
"""

import argparse
import contextlib
import hashlib
import io
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from info_geometry.script import InputError, arrays_in, differing_file, replacing, run, shown, versions, writing
from supervised_imagenet import datasets


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("target", type=Path, metavar="TARGET")
    parser.add_argument(
        "--dataset", choices=["imagenet", "imagefolder"], default="imagenet", help="imagefolder: any tree"
    )
    parser.add_argument("--subset", action="store_true", help="say that only some of ImageNet's classes are there")
    parser.add_argument("--longest-side", type=int, default=500, help="pixels (default: 500, as published)")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG files (default: 90)")
    parser.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    args = parser.parse_args()
    if args.longest_side < 8 or not 1 <= args.quality <= 100 or (args.workers or 1) < 1:
        parser.error("--longest-side must be 8 or more, --quality between 1 and 100, --workers 1 or more")
    if args.source.resolve() == args.target.resolve():
        parser.error("TARGET must be another folder than SOURCE")
    return args


def main():
    args = parse()
    classes, train, val = datasets.read_tree(args.source, args.dataset, args.subset)
    record = {"longest_side": args.longest_side, "quality": args.quality}
    begin(args.target / "prepared.json", record | {"versions": versions("pillow")})
    manifest, corrupt = {"classes": np.array(classes), "record": np.array(json.dumps(record))}, []
    for name, split in (("train", train), ("val", val)):
        found, faults = prepare(split, args.target / name, recorded(args.target, name), args)
        manifest |= {f"{name}_{key}": values for key, values in found.items()}
        corrupt += faults
    if corrupt and not args.skip_corrupt:
        more = f" and {len(corrupt) - 3} more" if len(corrupt) > 3 else ""
        raise InputError(
            f"images that cannot be read: {'; '.join(corrupt[:3])}{more}; mend or remove them, or leave them out with "
            "--skip-corrupt (all others are done)"
        )
    path = args.target / datasets.MANIFEST
    with replacing(path) as partial:
        np.savez(partial, **manifest)
    n_images = len(manifest["train_ids"]) + len(manifest["val_ids"])
    print(f"{shown(path)}: {n_images} images of {len(classes)} classes" + f", {len(corrupt)} left out" * bool(corrupt))


def begin(path, record):
    """Note how images are prepared; raises InputError where others were prepared otherwise."""
    if path.exists():
        if differ := differing_file(path, record):
            raise InputError(f"{shown(path)}: images were prepared otherwise ({differ}); choose another folder")
        return
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")


def recorded(target, split):
    """{id: hash} of the images in a manifest, if there is one."""
    if not (target / datasets.MANIFEST).exists():
        return {}
    datasets.read_manifest(target)  # which says what is wrong with it
    with arrays_in(target / datasets.MANIFEST) as manifest:
        return dict(zip(manifest[f"{split}_ids"].tolist(), map(bytes, manifest[f"{split}_sha256"]), strict=True))


def prepare(split, target, hashes, args):
    """Prepare the images of a split; returns columns of the manifest, and sentences about those that are corrupt."""
    from tqdm import tqdm

    ids = [id if id.lower().endswith((".jpg", ".jpeg")) else f"{id}.jpg" for id in split.ids]
    for folder in sorted({(target / id).parent for id in ids}):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (path, target / id, hashes.get(id.encode()), args.longest_side, args.quality)
        for path, id in zip(split.paths, ids, strict=True)
    ]
    rows, corrupt = {}, []
    with ProcessPoolExecutor(args.workers) as pool:
        found = pool.map(prepare_one, jobs, chunksize=16)
        try:
            for n, row in enumerate(tqdm(found, desc=target.name, total=len(jobs), unit="image", disable=None)):
                if isinstance(row, str):
                    corrupt.append(row)
                else:
                    rows[n] = row
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    kept = list(rows)
    sizes, n_bytes, digests = zip(*rows.values(), strict=True) if rows else ((), (), ())
    return {
        "ids": np.array([ids[n].encode() for n in kept]),
        "labels": split.labels[kept].astype(np.int32),
        "sizes": np.array(sizes, dtype=np.int32),
        "bytes": np.array(n_bytes),
        "sha256": np.array([list(d) for d in digests], dtype=np.uint8),
    }, corrupt


def prepare_one(job):
    """Prepare one image: its size, number of bytes and hash, or a sentence saying why it cannot be read."""
    from PIL import Image

    from supervised_imagenet import images

    source, target, expected, longest, quality = job
    with contextlib.suppress(*images.FAULTS):  # it is not there, or not an image
        data = target.read_bytes()
        digest = hashlib.sha256(data).digest()
        if expected in (None, digest):
            with Image.open(io.BytesIO(data)) as image:
                return image.size, len(data), digest
    try:
        data = source.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            small = image.format == "JPEG" and image.mode == "RGB" and max(image.size) <= longest
            image.draft("RGB", (2 * longest, 2 * longest))  # no finer than needed
            found = images.as_rgb(image)
    except images.FAULTS as error:
        return f"{shown(source)} ({error})"
    found.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    if not small:
        buffer = io.BytesIO()
        found.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
    with replacing(target) as partial:
        partial.write_bytes(data)
    return found.size, len(data), hashlib.sha256(data).digest()


if __name__ == "__main__":
    run(main, resumes=True)
