"""Augmentations of batches on the device, by kornia: each image gets its own.

`strong` is that of SimCLR for CIFAR-10 (Chen et al., "A simple framework for contrastive learning of visual
representations", arXiv 2002.05709, appendices A and B.9): a resized crop, a mirror image, colours distorted with
strength 0.5, and sometimes grey. Digits, which are grey and no longer themselves in a mirror, are cropped, turned a
little, and changed in brightness and contrast. What is random comes from torch's generator.
"""

import kornia.augmentation as K
import torch


def strong(channels, side):
    """A function that makes a view of each of some images (B, channels, side, side) in [0, 1]; of grey ones as of
    digits."""
    if channels == 3:
        steps = [
            K.RandomResizedCrop((side, side), scale=(0.08, 1.0)),
            K.RandomHorizontalFlip(),
            K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
        ]
    else:
        steps = [
            K.RandomResizedCrop((side, side), scale=(0.5, 1.0), ratio=(0.8, 1.25)),
            K.RandomRotation(15.0),
            K.RandomBrightness((0.7, 1.3), p=0.8),
            K.RandomContrast((0.6, 1.4), p=0.8),
        ]
    return K.AugmentationSequential(*steps, data_keys=["input"])


def cut_out(pixels, part=0.5):
    """Each image with a grey square of `part` of its side, and a pixel, around a random place (DeVries and Taylor,
    arXiv 1708.04552)."""
    n, _, side, _ = pixels.shape
    centre = torch.randint(side, (2, n, 1), device=pixels.device)
    place = torch.arange(side, device=pixels.device)
    inside = (place - centre).abs() <= part * side / 2
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.5, pixels)
