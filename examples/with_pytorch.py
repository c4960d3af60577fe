"""Recording in a loop of PyTorch's own: two networks of different size learn the digits.

    python examples/with_pytorch.py
    python info_geometry/inpca.py predictions/toydigits_*

Lines that end in `# recording` are all that a training loop needs.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from info_geometry import Recorder  # recording
from info_geometry.predictions import PREDICTIONS

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16).float(), torch.tensor(labels)
train, probe = slice(0, 1000), slice(1000, None)

for name, width in (("narrow", 8), ("wide", 128)):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    recorder = Recorder(  # recording
        PREDICTIONS / f"toydigits_{name}", images[probe], labels[probe], overwrite=True
    )
    for step in range(1000):
        if recorder.due(step):  # recording
            recorder.record(network)  # recording
        batch = torch.randint(1000, (50,))
        loss = F.cross_entropy(network(images[train][batch]), labels[train][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    recorder.record(network, 1000)  # recording
    recorder.close()  # recording
    print(recorder.path)
