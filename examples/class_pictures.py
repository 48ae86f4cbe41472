"""Make pictures of what a network takes for each of its classes, and, from photographs, of the kinds of one class."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
garments = network.load_images(model)

# Start from what all garments have in common, whatever their class, and let noise hide what is too fine to be meant.
calm = {"copies": 2, "noise": 0.38, "roughness": 0.0035, "cooling": 0.9}
found = ov.class_visualization(
    model, range(10), objective="probability", start="images", images=garments, steps=200, regularization=calm
)
for index, probability in zip(found.classes, found.probabilities, strict=True):
    print(f"{model.labels[index]}: p {probability:.3f} while the picture is shifted")
ov.save_figure(ov.plot(found, columns=6), "class_pictures.png", dpi=100)

# Several kinds of one class: each picture starts from the mean of a cluster of its images.
bags = garments.subset(garments.folder_classes == 8)
for step in ov.class_visualization_steps(
    model, "bag", objective="probability", images=bags, facets=5, steps=40, regularization=calm
):
    if step.done % 10 == 0:
        print(f"step {step.done} of {step.total}: log p {step.scores.round(2)}")
ov.save_figure(ov.plot(step.result), "facets.png", dpi=100)
