"""For channels of one value in the middle and one at the end: the patches of all images that excite them most."""

from __future__ import annotations

from onnxviz.methods.top_patches import top_patches
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, render

__all__ = ["make"]

_PATCHES = 9
_FEWEST_IMAGES = 4


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    images = exam.need_images(_FEWEST_IMAGES)
    if exam.options.values:
        names = [name for name in exam.chosen_values(2) if exam.is_map(name)][:3]
    else:
        maps = exam.maps
        names = list(dict.fromkeys([maps[len(maps) // 2].name, maps[-1].name])) if maps else []
    if not names:
        raise SectionSkipped(exam.lacks("no value with channels and positions in this graph"))
    section.numbers["values"] = []
    for number, name in enumerate(names):
        found = top_patches(exam.model, images, value=name, k=min(_PATCHES, len(images)))
        section.figures.append(
            Figure(
                f"value-{number}",
                f"{name}: {len(found.drawn)} of {len(found.channels):,} channels, strongest patch first.",
                render(found),
            )
        )
        section.numbers["values"].append(
            {
                "value": name,
                "channels": len(found.channels),
                "drawn": found.drawn,
                "strongest": [
                    {
                        "channel": int(channel),
                        "score": float(found.scores[row, 0]),
                        "image": found.names[found.image_index[row, 0]] if found.image_index[row, 0] >= 0 else None,
                        "position": found.positions[row, 0],
                        "box": found.boxes[row, 0],
                    }
                    for row, channel in enumerate(found.channels)
                    if channel in found.drawn
                ],
            }
            | provenance_numbers(found.provenance)
        )
        section.arrays |= {
            f"scores_{number}": found.scores,
            f"image_index_{number}": found.image_index,
            f"positions_{number}": found.positions,
            f"boxes_{number}": found.boxes,
        }
