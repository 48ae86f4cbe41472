"""The sections of the report in the order in which they stand: what each is called and how its picture is read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import cast

from onnxviz.report.section import Section, SectionMaker

__all__ = ["SECTIONS", "Outline"]


@dataclass(frozen=True)
class Outline:
    """What is known of a section before any model is opened."""

    name: str
    title: str
    reading: tuple[str, str]
    last: bool = False
    """Whether it is made after the others because it counts what they met; it stands in its place all the same."""

    def empty(self) -> Section:
        """The section without content."""
        return Section(self.name, self.title, self.reading)

    @property
    def make(self) -> SectionMaker:
        """The function that fills it, found in the module of the same name."""
        return cast(SectionMaker, import_module(f"onnxviz.report.sections.{self.name}").make)


SECTIONS: tuple[Outline, ...] = (
    Outline(
        "model",
        "The model and its contracts",
        (
            "What the file declares, how images become its input, and how its output is read, each with the reason.",
            "If a contract is not the one used in training, every picture below shows a network that is looking at "
            "something else.",
        ),
    ),
    Outline(
        "images",
        "The images",
        (
            "The files that were examined, those that were skipped, and what had to be done to read them.",
            "Skipped files are in no number of this report, so the two counts should add up to what you meant to show.",
        ),
        last=True,
    ),
    Outline(
        "predictions",
        "Predictions",
        (
            "For each image the most likely classes with their probability; below, how sure the network is over all "
            "images, and where it errs if the true classes are known.",
            "A histogram that is one bar at the right or at the left, or a confusion table with one full column, means "
            "that the network does not answer to the images.",
        ),
    ),
    Outline(
        "filters",
        "Filters",
        (
            "The weights themselves: first-layer filters are drawn as the colours they respond to, deeper ones as grey "
            "tiles, one group per filter, from the lowest weight (black) to the highest (white).",
            "A trained first layer has smooth edges, bars and colour blobs; noise, or many equal tiles, is what "
            "too little training or dead filters look like.",
        ),
    ),
    Outline(
        "activations",
        "Activation maps",
        (
            "Each tile is one channel's answer to the image beside it, brighter where it is stronger.",
            "Early maps follow edges and colours, deeper ones light up at few places; tiles that are flat for every "
            "image belong to channels that do no work, and the table counts them over all images.",
        ),
    ),
    Outline(
        "patches",
        "What excites a channel most",
        (
            "Each row is one channel: the patches of all images, cut out by its receptive field, to which it responds "
            "most strongly, strongest first.",
            "Patches of a row that share a texture, a colour or a thing tell what the channel looks for; a row "
            "without anything in common belongs to a channel that codes something only together with others.",
        ),
    ),
    Outline(
        "occlusion",
        "Occlusion",
        (
            "A patch of the image's mean colour is slid over the image; the map shows how probable the class remains "
            "with the patch at each place, and where hiding a pixel costs most.",
            "The lowest places should lie on the thing that the class names; if they lie on the background, the "
            "network has learned the background.",
        ),
    ),
    Outline(
        "explanations",
        "Explanations by derivatives",
        (
            "The same photos, and which of their pixels the class's logit hangs on: nine methods that go back through "
            "the network from the logit, side by side.",
            "They answer different questions, so their maps differ; what several of them and the occlusion map point "
            "to is worth believing, and maps that lie on the background are a reason to doubt the network.",
        ),
    ),
    Outline(
        "trust",
        "Can these maps be believed?",
        (
            "Two tests of the maps on this network: a pattern is made the only cause of a class, and each map must "
            "point to it; then the weights are shuffled, and each map must change.",
            "A map that misses the pattern, or that looks the same with shuffled weights, is no evidence here, however "
            "convincing it looks; the controls know nothing of the network and must fail.",
        ),
    ),
    Outline(
        "neighbors",
        "Nearest neighbours",
        (
            "Each query image is followed by the images nearest to it in the network's feature space, and below by "
            "those nearest in raw pixels.",
            "Feature neighbours that show the same kind of thing in other poses and colours mean that the features "
            "carry meaning; if they only share the colours, as pixel neighbours do, they do not.",
        ),
    ),
    Outline(
        "near_duplicates",
        "Near-duplicates",
        (
            "Pairs of images that lie far closer to each other in feature space than either lies to its other "
            "neighbours: copies, crops, edits, or frames of one burst.",
            "Each of them counts the same thing twice, and where their labels differ one must be wrong; a set of "
            "distinct images has none left of the threshold.",
        ),
    ),
    Outline(
        "label_suspects",
        "Labels against neighbours",
        (
            "The images most of whose nearest neighbours bear another label, with these neighbours; then, for each "
            "class, of which classes its neighbours are.",
            "A suspect that looks like its neighbours is probably mislabelled, one that does not is merely hard; "
            "classes that share their neighbours are those that the features cannot keep apart.",
        ),
    ),
    Outline(
        "hubness",
        "Hubs",
        (
            "How often each image is among the nearest neighbours of the others, and the images for which that is most "
            "often, or never, the case.",
            "With a long tail to the right a few images are everybody's neighbour, so that searches and votes by "
            "neighbours hear the same few voices; a hub with many bad occurrences misleads them.",
        ),
    ),
    Outline(
        "embedding",
        "The feature space in two dimensions",
        (
            "Every point is an image, placed by PCA (the two directions of largest variance) and by t-SNE (near "
            "neighbours stay near), coloured by its class where that is known.",
            "Classes that form islands in t-SNE are separated by the features; its distances between islands and the "
            "islands' sizes mean nothing.",
        ),
    ),
    Outline(
        "grid",
        "The images on a grid",
        (
            "The images themselves, laid on a regular grid so that neighbours in the t-SNE map stay neighbours.",
            "Regions of one kind of thing show what the network considers alike; an image among strangers is worth a "
            "look, it may be mislabelled.",
        ),
    ),
    Outline(
        "class_pictures",
        "Class pictures",
        (
            "Pictures that gradient ascent has made from noise until the network takes each for a class: what it looks "
            "for, without any image of it.",
            "Parts and colours of the thing should be found in its picture; a thing that never comes alone shows with "
            "its company, and a picture of nothing but texture tells that texture is what the network goes by.",
        ),
    ),
    Outline(
        "provenance",
        "Where the numbers come from",
        (
            "The digest of the model, every parameter, and the versions of all that computed.",
            "The same digest, parameters and versions give the same results.json, byte for byte, on the same kind of "
            "machine.",
        ),
        last=True,
    ),
)
