"""Information geometry of prediction space: distances, geodesics, embedding and trajectories.

Networks are points: P of shape (N, C) gives each of N samples a probability over C classes. A trajectory
(T, N, C) is the path of one training run. Nothing here trains a network; prediction files
(`info_geometry.predictions`) are all that comes in.

For networks of your own: `Recorder` takes predictions in any training loop, `embed` makes a picture of arrays.
"""

import importlib

_WHERE = {"Recorder": "recorder", "embed": "inpca", "InPCA": "inpca", "plot": None, "page": None}


def __getattr__(name):
    # imported when asked for, since scripts answer --help without them
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_WHERE[name] or name}")
    return getattr(module, name) if _WHERE[name] else module
