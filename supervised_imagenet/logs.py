"""What a run says of itself while it trains: `log.jsonl` in its folder, a line of JSON for each checkpoint."""

import contextlib
import json

from info_geometry.script import InputError, from_json, replacing, writing


class Log:
    """The lines of a run up to `step`, from which it goes on; and the same numbers for TensorBoard, if wanted."""

    def __init__(self, folder, step, tensorboard=False):
        self.path = folder / "log.jsonl"
        kept = [row for row in read(folder) if row["step"] <= step]
        with replacing(self.path) as partial:
            partial.write_text("".join(map(_line, kept)))
        self.board = summary_writer()(folder / "tensorboard", purge_step=step + 1) if tensorboard else None

    def write(self, row):
        with writing(self.path), open(self.path, "a") as file:
            file.write(_line(row))
        if self.board:
            for name, value in row.items():
                self.board.add_scalar(name, value, row["step"])
            self.board.flush()


def read(folder):
    """The lines of a run's log, [{"step": ..., ...}, ...]; a last one that a kill cut short is left out."""
    rows = []
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "log.jsonl").read_text().splitlines():
            rows.append(from_json(line))
    return rows


def _line(row):
    return json.dumps(row) + "\n"


def summary_writer():
    """TensorBoard's class; raises InputError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: tensorboard is not installed; pip install tensorboard") from None
    return SummaryWriter
