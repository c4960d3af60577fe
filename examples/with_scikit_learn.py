"""Recording what is learned bit by bit in scikit-learn: two kinds of models learn the digits by `partial_fit`.

python examples/with_scikit_learn.py
python info_geometry/inpca.py predictions/toydigits_*
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from info_geometry import Recorder
from info_geometry.predictions import PREDICTIONS

images, labels = load_digits(return_X_y=True)
images, classes = (images / 16).astype(np.float32), np.unique(labels)

models = {
    "logistic": SGDClassifier(loss="log_loss", random_state=0),
    "perceptron": MLPClassifier(64, learning_rate_init=0.003, random_state=0),
}
for name, model in models.items():
    rng = np.random.default_rng(0)
    with Recorder(PREDICTIONS / f"toydigits_{name}", images[1000:], labels[1000:], overwrite=True) as recorder:
        for step in range(1, 501):
            batch = rng.integers(1000, size=50)
            model.partial_fit(images[batch], labels[batch], classes=classes)
            if recorder.due(step):  # a model of scikit-learn predicts only after it has learned something
                recorder.record(model)
    print(recorder.path)
