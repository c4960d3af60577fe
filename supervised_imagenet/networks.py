"""Networks by name: every timm model, and two that timm lacks for images of 8 to 32 pixels.

All answer to timm's interface: `forward_features`, then `forward_head(..., pre_logits=True)` gives the
features (B, F) that the last layer sees, and `get_classifier()` is that layer.
"""

import contextlib
import os
import re

import torch
import torch.nn.functional as F
from torch import nn

from info_geometry.script import InputError, unknown

EXAMPLES = ("cnn", "wrn-16-1", "wrn-16-2", "wrn-16-4", "resnet18", "resnet50")


def create(arch, n_classes, in_channels, pretrained=False):
    """The network `arch` with a head for `n_classes`, or without one (features come out) for 0.

    `cnn`, `wrn-<depth>-<width>` or the name of a timm model, which may be `pretrained`: then timm downloads its weights
    if need be, and has the number of classes that these are for if `n_classes` is None. Raises InputError for an
    unknown name, and for weights that are not to be had.
    """
    own = _own(arch, n_classes, in_channels)
    if own and pretrained:
        raise InputError(f"--arch {arch}: has no pretrained weights, as timm's models have")
    if own:
        return own
    import timm

    if not timm.is_model(arch):
        raise unknown("network", arch, [*EXAMPLES, *timm.list_models()])
    try:
        classes = {} if n_classes is None else {"num_classes": n_classes}
        return timm.create_model(arch, pretrained, in_chans=in_channels, **classes)
    except Exception as error:  # a model may refuse settings in whatever way its authors chose
        what = f"with pretrained weights; --weights takes a file of them, {' or '.join(_sources(arch))}"
        what = what if pretrained else f"for {in_channels} channels"
        raise InputError(f"--arch {arch}: timm cannot make it {what} ({_line(error)})") from error


def _own(arch, n_classes, in_channels):
    if arch == "cnn":
        return SmallCNN(n_classes, in_channels)
    if wide := re.fullmatch(r"wrn-(\d+)-(\d+)", arch):
        return WideResNet(int(wide[1]), int(wide[2]), n_classes, in_channels)
    return None


def _sources(arch):
    config = _config(arch)
    places = [config and config.hf_hub_id and f"from huggingface.co/{config.hf_hub_id}", config and config.url]
    return [place for place in places if place] or ["from elsewhere"]


def _config(arch):
    """What timm knows of a network's pretrained weights; None for others."""
    import timm

    try:
        return timm.get_pretrained_cfg(arch)
    except RuntimeError:  # an unknown name
        return None


def normalisation(arch):
    """Mean and standard deviation of each channel by which timm normalises images for `arch`; ImageNet's for others."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    config = _config(arch)
    return (config.mean, config.std) if config else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def evaluation_view(arch):
    """Side of images and part of their shorter side, as timm evaluates `arch`."""
    config = _config(arch)
    return (config.input_size[-1], config.crop_pct) if config else (224, 224 / 256)


def _line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check(arch, shape):
    """Raise InputError unless the network `arch` makes features of images of this shape (channels, size, size)."""
    network = create(arch, 2, shape[0]).eval()
    try:
        with torch.inference_mode():
            found = features(network, torch.zeros(2, *shape))
    except Exception as error:
        raise InputError(f"--arch {arch}: takes no images of shape {tuple(shape)} ({_line(error)})") from error
    if found.ndim != 2 or network.get_classifier() is None:
        raise InputError(f"--arch {arch}: has no features before a last layer, such as classifiers have")


def device(name=None):
    """The torch device called `name`, or a GPU if there is one; the CPU computes deterministically.

    Raises InputError for a device that this machine does not have.
    """
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", chosen):
        raise InputError(f"--device {chosen}: must be cpu, cuda, or cuda:<number>")
    try:
        # of several processes each is to touch its own GPU only
        torch.zeros(1, device=f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if chosen == "cuda" else chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {chosen}: not on this machine ({_line(error)}); cpu always is") from error
    # what use_deterministic_algorithms does, but for loading compilers, which takes a second
    torch.set_deterministic_debug_mode("error" if torch.device(chosen).type == "cpu" else "default")
    torch.backends.cudnn.benchmark = True  # images come in few sizes
    return torch.device(chosen)


def precision_on(device, name="auto"):
    """The precision that `auto` is on a device: on a GPU the half that it is made for, on the CPU float32."""
    if name != "auto":
        return name
    return (
        "float32"
        if device.type == "cpu"
        else "bfloat16"
        if torch.cuda.is_bf16_supported(including_emulation=False)
        else "float16"
    )


class Precision:
    """Of matrix products: float32, bfloat16 or float16; channels are last.

    Weights stay in float32, and float16 gets a scaler, so that small gradients do not vanish.
    """

    def __init__(self, network, device, name):
        self.name, self.device, self.half = name, device, name != "float32"
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")
        network.to(memory_format=torch.channels_last)

    def autocast(self):
        return torch.autocast(self.device.type, getattr(torch, self.name), enabled=self.half)

    def layout(self, images):
        return images.contiguous(memory_format=torch.channels_last)


def track_statistics(network, tracked):
    """Whether norms, while training, note what evaluation will normalise by."""
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            module.track_running_stats = tracked


def renew_statistics(network, batches):
    """Have norms normalise by means and variances of `batches` of images, whole batch by whole batch, in place of what
    they noted while the weights were others ("precise batch normalisation", Wu and Johnson, arXiv 2105.07576)."""
    norms = [module for module in network.modules() if getattr(module, "running_mean", None) is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    with torch.no_grad():
        for images in batches if norms else ():
            features(network, images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextlib.contextmanager
def memory_suffices(device, way_out):
    """Turn a lack of memory on a GPU into the sentence that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(f"the memory of {device} does not suffice ({_line(error)}); {way_out}") from error


@contextlib.contextmanager
def compiler_works():
    """Turn a failure of torch.compile into the sentence that says what to do."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    try:
        yield
    except (TorchDynamoException, CppCompileError) as error:
        raise InputError(f"--compile: torch.compile failed ({_line(error)}); leave it out") from error


def features(network, images):
    """What the last layer sees, (B, F)."""
    return network.forward_head(network.forward_features(images), pre_logits=True)


def finite_features(network, images, precision):
    """Features, in half precision where `precision` has it; where they overflow there, in float32.

    Raises FloatingPointError where they are not finite even so.
    """
    with precision.autocast():
        found = features(network, images)
    if precision.half and not found.isfinite().all():
        found = features(network, images)
    if not found.isfinite().all():
        raise FloatingPointError("its features are not finite: the run diverged or the file is damaged")
    return found


def classifier_names(network):
    """The names of the last layer's module or modules, whose weights do not matter to features."""
    config = getattr(network, "pretrained_cfg", None) or {}
    names = config.get("classifier", "head")
    return (names,) if isinstance(names, str) else tuple(names)


class _Network(nn.Module):
    """A network whose features are averaged over the image and classified by one linear layer."""

    def __init__(self, body, n_features, n_classes):
        super().__init__()
        self.body = body
        self.head = nn.Linear(n_features, n_classes) if n_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self):
        return self.head

    def forward_features(self, x):
        return self.body(x)

    def forward_head(self, x, pre_logits=False):
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.head(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def _conv(n_in, n_out, stride=1, kernel=3):
    return nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)


class SmallCNN(_Network):
    """Three convolutions with batch normalisation, 16 to 64 channels: for digits, in seconds on a laptop."""

    def __init__(self, n_classes, in_channels):
        layers, channels = [], in_channels
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            layers += [_conv(channels, width, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        super().__init__(nn.Sequential(*layers), channels, n_classes)


class WideResNet(_Network):
    """Wide residual network (Zagoruyko and Komodakis, 2016, arXiv 1605.07146, table 1), without dropout."""

    def __init__(self, depth, width, n_classes, in_channels):
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise InputError(f"wrn-{depth}-{width}: the depth must be 10, 16, 22, ... and the width 1 or more")
        layers, channels = [_conv(in_channels, 16)], 16
        for group in range(3):
            for block in range((depth - 4) // 6):
                stride = 2 if group > 0 and block == 0 else 1
                layers.append(_Block(channels, 16 * width << group, stride))
                channels = 16 * width << group
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        super().__init__(nn.Sequential(*layers), channels, n_classes)


class _Block(nn.Module):
    """Normalisation and activation before each of two convolutions, around which the input is added."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(n_in), _conv(n_in, n_out, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(n_out), _conv(n_out, n_out)
        self.shortcut = _conv(n_in, n_out, stride, kernel=1) if n_in != n_out or stride > 1 else None

    def forward(self, x):
        active = F.relu(self.norm1(x))
        around = x if self.shortcut is None else self.shortcut(active)
        return around + self.conv2(F.relu(self.norm2(self.conv1(active))))
