"""Recording in Hugging Face's Trainer, by a callback: a small BERT, without pretrained weights, learns to tell from a
line of Python's manual which chapter it is of.

    pip install transformers accelerate
    python examples/with_transformers.py
    python info_geometry/inpca.py predictions/manual_*
"""

import tempfile
from pydoc_data.topics import topics

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from info_geometry import Recorder
from info_geometry.predictions import PREDICTIONS

CHAPTERS, LENGTH = ("specialnames", "formatstrings", "debugger", "string-methods"), 48

lines = [(line.strip(), c) for c, name in enumerate(CHAPTERS) for line in topics[name].splitlines() if len(line) > 30]
letters = [list(line.encode("ascii", "replace")[:LENGTH]) for line, _ in lines]
tokens = torch.tensor([row + [0] * (LENGTH - len(row)) for row in letters])
mask, labels = (tokens > 0).long(), torch.tensor([c for _, c in lines])
order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))
probe, train = order[:300], order[300:]


class Recording(TrainerCallback):
    """Records whenever a step is due, and at the end."""

    def __init__(self, recorder):
        self.recorder = recorder

    def on_step_begin(self, args, state, control, model, **_):
        if self.recorder.due(state.global_step):
            self.recorder.record(model)

    def on_train_end(self, args, state, control, model, **_):
        self.recorder.record(model, state.global_step)
        self.recorder.close()


set_seed(0)
config = BertConfig(
    vocab_size=128,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=LENGTH,
    num_labels=len(CHAPTERS),
)
recorder = Recorder(
    PREDICTIONS / "manual_bert",
    {"input_ids": tokens[probe], "attention_mask": mask[probe]},
    labels[probe],
    overwrite=True,
)
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        BertForSequenceClassification(config),
        TrainingArguments(
            output_dir=folder,
            max_steps=150,
            per_device_train_batch_size=16,
            learning_rate=2e-3,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": tokens[i], "attention_mask": mask[i], "labels": labels[i]} for i in train],
        callbacks=[Recording(recorder)],
    )
    trainer.train()
print(recorder.path)
