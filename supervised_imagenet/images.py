"""Image files: what modes they have, and many of them decoded to one size."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from info_geometry.script import InputError, shown

# what Pillow raises for bytes that are no image, or not all of it
FAULTS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def share_of_cores():
    """Processors for each of the processes that torchrun has started on this machine."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def as_rgb(image):
    """A Pillow image in RGB with 8 bits a channel, whatever it was: grey, palette, CMYK, 16 bits, transparent."""
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which convert() would clip
        pixels = np.asarray(image)
        if pixels.dtype.kind == "f" or pixels.max() >= 1 << 16:
            raise ValueError("32 bits a pixel")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    return image.convert("RGB")


def decoded(paths, size, title, corrupt=None):
    """The images at `paths` as (N, 3, size, size) uint8: their central squares, brought to `size`.

    Raises InputError naming an image that cannot be read; where `corrupt` is a list, notes its index there instead.
    """
    found = np.zeros((len(paths), 3, size, size), dtype=np.uint8)

    def decode(n):
        try:
            with Image.open(paths[n]) as image:
                image = ImageOps.fit(as_rgb(image), (size, size), Image.Resampling.BICUBIC)
        except FAULTS as error:
            if corrupt is None:
                raise InputError(
                    f"{shown(paths[n])}: not a readable image ({error}); mend it, remove it, or --skip-corrupt"
                ) from error
            corrupt.append(n)
        else:
            found[n] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor(share_of_cores()) as pool:
        for _ in tqdm(pool.map(decode, range(len(paths))), desc=f"decoding {title}", total=len(paths), disable=None):
            pass
    return found
