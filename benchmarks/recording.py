"""What recording adds to the time of training: `make benchmark` puts this into benchmarks/README.md."""

import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from info_geometry import Recorder
from supervised_imagenet import networks

# side of images, channels, images in a batch, steps, samples that are predicted
SIZES = [(8, 1, 50, 2000, 797), (32, 3, 64, 500, 500), (32, 3, 64, 500, 2000)]


def trained(side, channels, batch, steps, n_samples, folder=None):
    """Seconds that training on noise takes, recorded to a folder if there is one, and the number of checkpoints."""
    torch.manual_seed(0)
    network = networks.create("cnn", 10, channels).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.rand(batch, channels, side, side), torch.arange(batch) % 10
    probe, labels = torch.rand(n_samples, channels, side, side), torch.arange(n_samples) % 10
    start = time.perf_counter()
    recorder = folder and Recorder(folder / "noise_all", probe, labels)
    for step in range(steps):
        if recorder and recorder.due(step):
            recorder.record(network)
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if recorder:
        recorder.close()
    return time.perf_counter() - start, len(recorder.steps) if recorder else 0


def rows():
    for size in SIZES:
        side, channels, batch, steps, n_samples = size
        trained(side, channels, batch, 20, n_samples)
        with tempfile.TemporaryDirectory() as folder:
            pairs = [(trained(*size)[0], trained(*size, Path(folder) / str(i))) for i in range(3)]  # in turn
        alone, (recorded, n) = map(min, zip(*pairs, strict=True))
        each = (recorded - alone) / n
        images = f"{channels} x {side} x {side}, {batch} of them in a step"
        yield f"| {images}, {steps} steps | {n_samples} | {n} | {recorded / alone:.2f} | {each / (alone / steps):.1f} |"


def report():
    return "\n".join(
        [
            "## Recording",
            "",
            "Training of a small network (`cnn`) on the processor, alone and with a `Recorder` on its own schedule:",
            "how many times as long it takes, and what a checkpoint costs, in steps of training. Of longer training it",
            "is less: each doubling of the steps has eight checkpoints.",
            "",
            "| images | samples predicted | checkpoints | times as long | a checkpoint, in steps |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows(),
            "",
        ]
    )


if __name__ == "__main__":
    print(report())
