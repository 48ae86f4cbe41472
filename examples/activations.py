"""Draw what two layers make of two photographs, and count the channels that never answer."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[0]
model = ov.load(network.model)
photos = network.load_images(model)

maps = ov.activations(model, photos.subset([2, 12]), values=("conv1/relu", "fire4/concat"))
for name, found in maps.items():
    ov.save_figure(ov.plot(found, sort="peak", max_channels=64), f"activations-{name.replace('/', '-')}.png")

over_all = ov.activations(model, photos, values="fire9/concat", reduce="statistics")["fire9/concat"]
print(f"{over_all.value}: {int(over_all.dead.sum())} of {len(over_all.dead)} channels never answer these photographs")
ov.save_figure(ov.plot(over_all), "activations-statistics.png")
