"""List the most likely classes of photographs, how sure the network is, and where it errs."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model)

found = ov.predictions(model, images)
print(f"{found.accuracy:.4f} of {len(found.names)} images right, {found.accuracy_top5:.4f} within the first five")
ov.save_figure(ov.plot(found), "predictions.png")
