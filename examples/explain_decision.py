"""Ask nine methods which pixels of a photograph made the network decide as it did."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[0]
model = ov.load(network.model)
photos = network.load_images(model)
photo = photos[photos.names.index("chelsea.jpg")]

explanations = [
    ov.saliency(model, photo),
    ov.gradient_x_input(model, photo),
    ov.smoothgrad(model, photo, samples=50, noise=0.15, seed=0),
    ov.integrated_gradients(model, photo, baseline="mean", steps=50),
    ov.gradcam(model, photo),
    ov.gradcam_plusplus(model, photo),
    ov.guided_gradcam(model, photo),
    ov.guided_backprop(model, photo),
    ov.deconvnet(model, photo),
]
first = explanations[0]
print(f"{first.target}: {first.scale} {first.score:.2f}, probability {first.probability:.3f}")
ov.save_figure(ov.plot(explanations), "explanations.png")

# The parts of integrated gradients add up to what the logit gained on the way from the photo's mean colour.
whole = explanations[3]
print(f"{whole.map.sum():.2f} of {whole.score - whole.baseline_score:.2f}")

# Any number can be explained: here what the strongest channel of an inner layer looks at.
ov.save_figure(ov.plot(ov.saliency(model, photo, ("fire5/concat", "strongest"))), "channel.png")
