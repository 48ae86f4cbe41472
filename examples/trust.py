"""Test explanation methods against a truth that is known: a cause planted into the network, and weights shuffled."""

from __future__ import annotations

import numpy as np

import onnxviz as ov

network = ov.embedded_sets()[0]
model = ov.load(network.model)
photos = network.load_images(model)


def saliency(model: ov.Model, image: np.ndarray, class_index: int) -> np.ndarray:
    return ov.saliency(model, image, class_index).map


def guided(model: ov.Model, image: np.ndarray, class_index: int) -> np.ndarray:
    return ov.guided_backprop(model, image, class_index).map


methods = {"saliency": saliency, "guided backpropagation": guided}
planted = ov.planted_cause(model, methods, trials=10, images=photos, seed=0)
for name, rate in zip(planted.methods, planted.rates, strict=True):
    print(f"{name} points to the planted cause in {rate:.0%} of the trials")
ov.save_figure(ov.plot(planted), "planted_cause.png")

shuffled = ov.randomization_check(model, methods, photos[photos.names.index("chelsea.jpg")], stages=2, seed=0)
for name, alike in zip(shuffled.methods, shuffled.correlations[:, -1], strict=True):
    print(f"{name}: rank correlation {alike:.2f} with the map of shuffled weights")
ov.save_figure(ov.plot(shuffled), "randomization.png")
