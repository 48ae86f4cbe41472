"""Draw the first filters of a network, and those of a deeper convolution."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[2]
model = ov.load(network.model)

first = ov.filters(model)
print(f"{first.value}: {first.weights.shape} from the tensor {first.weight_name!r}, colours in {first.channel_order}")
ov.save_figure(ov.plot(first), "filters-first.png")

convolutions = [value.name for value in model.values() if value.kind == "conv"]
deeper = ov.filters(model, convolutions[1])
ov.save_figure(ov.plot(deeper, max_filters=10), "filters-deeper.png")
