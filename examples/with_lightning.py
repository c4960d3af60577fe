"""Recording in PyTorch Lightning, by a callback: a network learns the digits.

pip install lightning
python examples/with_lightning.py
python info_geometry/inpca.py predictions/toydigits_*
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

try:
    import lightning as L
except ImportError:
    import pytorch_lightning as L

from info_geometry import Recorder
from info_geometry.predictions import PREDICTIONS

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16).float(), torch.tensor(labels)


class Digits(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, _):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


class Recording(L.Callback):
    """Records whenever a step is due, and at the end."""

    def __init__(self, recorder):
        self.recorder = recorder

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if self.recorder.due(trainer.global_step):
            self.recorder.record(module)

    def on_train_end(self, trainer, module):
        self.recorder.record(module, trainer.global_step)
        self.recorder.close()


L.seed_everything(0)
recorder = Recorder(PREDICTIONS / "toydigits_lightning", images[1000:], labels[1000:], overwrite=True)
batches = DataLoader(TensorDataset(images[:1000], labels[:1000]), batch_size=50, shuffle=True)
trainer = L.Trainer(
    max_epochs=20,
    accelerator="cpu",
    callbacks=[Recording(recorder)],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Digits(), batches)
print(recorder.path)
