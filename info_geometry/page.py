"""A page to turn: one file that opens without a network, with all trajectories, legend, axes, time and animation.

`page.html` is its text and its code; what changes from picture to picture is data in JSON.
"""

import html
import json
import re
from pathlib import Path

import numpy as np

from info_geometry import plot
from info_geometry.picture import mean_of_runs
from info_geometry.script import replacing

TEMPLATE = Path(__file__).with_name("page.html")
N_AXES = 5
N_POINTS = 10_000  # which a browser still turns smoothly
DIGITS = 5  # of the largest coordinate
DASHES = dict(zip(plot.DASHES, ("solid", "dash", "dot", "dashdot", "longdash"), strict=True))


def write(path, picture):
    """Write the page of a picture; returns the path. Of more than 10,000 models, every second, third, ... is shown."""
    from plotly.offline import get_plotlyjs

    every = -(-len(picture.embedding) // N_POINTS)
    title = picture.title(3) + (f"; one of {every} models shown" if every > 1 else "")
    # nothing in the data may end the script that holds it
    data = json.dumps(content(picture, every), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    filled = {"TITLE": html.escape(title), "PLOTLY": get_plotlyjs(), "DATA": data}
    parts = re.split(f"({'|'.join(filled)})", TEMPLATE.read_text(encoding="utf-8"))
    with replacing(path) as partial:
        partial.write_text("".join(filled.get(part, part) for part in parts), encoding="utf-8")
    return path


def content(picture, every=1):
    """What the page shows: for each task its colour, mean and runs, with all that is known of checkpoints."""
    axes = range(min(N_AXES, max(3, picture.embedding.shape[1])))
    points = picture.coordinates(axes)
    digits = DIGITS - int(np.ceil(np.log10(np.abs(points).max(initial=1e-300))))

    def some(length):
        """Every second, third, ... checkpoint, and the last."""
        return np.unique(np.append(np.arange(0, length, every), length - 1))

    known = [name for name in ("epoch", "progress", "accuracy") if getattr(picture, name) is not None]
    tasks, look = [], plot.look_of(picture)
    for task, runs in picture.tasks.items():
        colour, dash = look[task]
        shown = []
        for run in runs:
            models = run.models[some(len(run.models))]
            columns = {"checkpoint": picture.checkpoint[models].tolist()}
            columns |= {name: np.round(getattr(picture, name)[models], 6).tolist() for name in known}
            shown.append({"seed": run.seed, "points": _rounded(points[models], digits), **columns})
        mean = mean_of_runs(points, runs)
        drawn = {"colour": colour, "dash": DASHES[dash], "mean": _rounded(mean[some(len(mean))], digits)}
        tasks.append({"name": task, **drawn, "runs": shown})
    clocks = ["epoch" if "epoch" in known else "checkpoint", *(["progress"] if "progress" in known else [])]
    content = {"axes": [picture.axis(i) for i in axes], "tasks": tasks, "clocks": clocks}
    if picture.geodesic is not None:
        near = picture.way_to_truth(axes[:3])[1]
        content["geodesic"] = {"points": _rounded(picture.columns(picture.geodesic, axes), digits), "near": bool(near)}
    return content


def _rounded(points, digits):
    return np.round(points, digits).tolist()
