"""Facts found by an examination → the verdict: one line per rule with its threshold, what was found, and what was not.

There is no overall grade: a rule is passed, is a finding, or was not checked, and then the reason stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RULES", "Facts", "Rule", "Verdict", "evaluate"]

FEW_IMAGES = 20
"""Below this many images a channel that stays silent, or a class that always wins, proves nothing."""
DEAD_SHARE = 0.5
SATURATED_SHARE = 0.1
CONSTANT_SPREAD = 1e-4
ONE_CLASS_SHARE = 0.95
SATURATED_CONFIDENCE = 0.9999
SATURATED_IMAGES = 0.9
ABOVE_CHANCE = 0.125
RELATIVE_TOLERANCE = 1e-4
TAP_STEPS = 8
"""Steps by which an integer output may move under taps: between QuantizeLinear and DequantizeLinear a tap keeps
onnxruntime from computing in integers, and 8-bit outputs of MobileNets moved by up to 7 of 256 on photographs."""
LEAST_ACCURACY = 0.25
DUPLICATE_SHARE = 0.01
"""What counts twice changes no figure of a report by more than this share of it."""
CHANCES = 3.0
_NOT_FINITE = "no score is a finite number"


@dataclass(frozen=True)
class ChannelCount:
    """Dead and saturated channels of one value over the images."""

    value: str
    channels: int
    dead: int
    saturated: int


@dataclass(frozen=True)
class Scores:
    """What the class scores look like over the images."""

    images: int
    classes: int
    spread: float
    """Largest change of any class's score from image to image."""
    one_class_share: float
    """Share of the images that get the most frequent class."""
    one_class: str
    saturated_share: float
    """Share of the images whose best class gets more than `SATURATED_CONFIDENCE`."""
    median_confidence: float
    normalised: bool
    """Whether the scores are probabilities."""
    finite_share: float = 1.0
    """Share of the images whose best score is a finite number."""


@dataclass(frozen=True)
class Difference:
    """How far two ways to compute the same outputs are apart."""

    largest: float
    """Largest absolute difference."""
    scale: float
    """Largest absolute value among the outputs."""
    step: float
    """One step of a quantised output; 0 otherwise. A last-digit rounding may fall either way."""
    what: str


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among the images."""

    images: int
    affected: int
    """Images that have a near-duplicate."""
    pairs: int
    conflicting: int
    """Pairs whose labels differ."""
    details: tuple[str, ...]
    """The closest of these in words."""


@dataclass
class Facts:
    """What the sections learned, for the rules; None where it could not be learned."""

    preprocess: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    has_output: bool = True
    images: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    unused_images: str = ""
    """Why images that were given could not be shown to the network."""
    weights: Mapping[str, int] | None = None
    """Tensor name to the number of NaN and infinite weights in it; only tensors that have some."""
    weights_scanned: int = 0
    non_finite_values: dict[str, int] = field(default_factory=dict)
    values_scanned: int = 0
    channels: list[ChannelCount] = field(default_factory=list)
    scores: Scores | None = None
    labelled: int = 0
    accuracy: float | None = None
    largest_class_share: float | None = None
    """Share of the labelled images that belong to the most frequent true class."""
    feature_accuracy: float | None = None
    pixel_accuracy: float | None = None
    compared: int = 0
    """Labelled images among which neighbours were sought."""
    duplicates: Duplicates | None = None
    batch: Difference | None = None
    taps: Difference | None = None
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Sections that an error ended, with the error."""
    missing: dict[str, str] = field(default_factory=dict)
    """Rule name to why its fact is missing."""


@dataclass(frozen=True)
class Verdict:
    """One line of the verdict."""

    rule: str
    title: str
    threshold: str
    found: str
    status: str
    """``"passed"``, ``"finding"`` or ``"not checked"``."""
    why: str = ""
    details: tuple[str, ...] = ()


Outcome = tuple[str, str, str, tuple[str, ...]]
"""Status, what was found, why, details."""


@dataclass(frozen=True)
class Rule:
    """A question with a threshold."""

    name: str
    title: str
    threshold: str
    check: Callable[[Facts], Outcome]


def evaluate(facts: Facts) -> tuple[Verdict, ...]:
    """Every rule on one model's facts, in the order of `RULES`."""
    verdicts = []
    for rule in RULES:
        status, found, why, details = rule.check(facts)
        if status == "not checked":
            why = facts.missing.get(rule.name, why)
        verdicts.append(Verdict(rule.name, rule.title, rule.threshold, found, status, why, details))
    return tuple(verdicts)


def _passed(found: str, why: str = "") -> Outcome:
    return "passed", found, why, ()


def _finding(found: str, why: str, *details: str) -> Outcome:
    return "finding", found, why, details


def _not_checked(why: str) -> Outcome:
    return "not checked", "", why, ()


def _preprocessing(facts: Facts) -> Outcome:
    if not facts.preprocess:
        return _not_checked("the model takes no image")
    source = str(facts.preprocess.get("source", ""))
    why = str(facts.preprocess.get("why", ""))
    if facts.preprocess.get("guessed"):
        return _finding(
            "guessed",
            "Every number of this report depends on how the images were prepared, and neither the file nor the caller "
            "says how. Pass --preprocess with the recipe used in training; if that changes the pictures, believe the "
            "new ones.",
            why,
        )
    return _passed(f"told by the {source}" if source else "told", why)


def _output(facts: Facts) -> Outcome:
    if not facts.has_output:
        return _not_checked("no output of this model looks like class scores")
    why = str(facts.output.get("why", ""))
    if facts.output.get("guessed"):
        return _finding(
            "guessed",
            "Which output holds the class scores, or what its numbers mean, was concluded from its shape and values.",
            why,
        )
    return _passed(f"told by the {facts.output.get('source') or 'graph'}", why)


def _weights(facts: Facts) -> Outcome:
    if facts.weights is None:
        return _not_checked("the weights were not read")
    if not facts.weights:
        return _passed(f"0 in {facts.weights_scanned:,} tensors")
    total = sum(facts.weights.values())
    return _finding(
        f"{total:,} in {len(facts.weights):,} of {facts.weights_scanned:,} tensors",
        "One NaN weight spoils every unit of its channel, and onnxruntime gives no warning. The export or the training "
        "step before it went wrong.",
        *(f"{name}: {count:,} NaN or infinite" for name, count in facts.weights.items()),
    )


def _values(facts: Facts) -> Outcome:
    if not facts.values_scanned:
        return _not_checked("no value was computed over the images")
    bad = {name: count for name, count in facts.non_finite_values.items() if count}
    if not bad:
        return _passed(f"0 in {facts.values_scanned:,} values over {facts.images:,} images")
    return _finding(
        f"{sum(bad.values()):,} in {len(bad):,} of {facts.values_scanned:,} values",
        "The first value of the list, in the order of the graph, is where it starts.",
        *(f"{name}: {count:,} NaN or infinite" for name, count in bad.items()),
    )


def _constant(facts: Facts) -> Outcome:
    scores = facts.scores
    if scores is None:
        return _not_checked("no class scores")
    if scores.images < 2:
        return _not_checked("one image cannot vary")
    if not scores.finite_share:
        return _not_checked(_NOT_FINITE)
    if scores.spread <= CONSTANT_SPREAD * (1.0 if scores.normalised else max(1.0, abs(scores.median_confidence))):
        return _finding(
            f"largest change {scores.spread:.2g}",
            "The network gives the same answer whatever it is shown: its weights are dead, or the images do not reach "
            "it.",
        )
    if scores.images < FEW_IMAGES:
        return _passed(f"largest change {scores.spread:.3g}")
    if scores.classes < 2:
        return _passed(f"largest change {scores.spread:.3g}; one score, so no class is chosen")
    found = f"{scores.one_class_share:.0%} of {scores.images:,} images are {scores.one_class!r}"
    expected = facts.largest_class_share
    if scores.one_class_share >= ONE_CLASS_SHARE and (expected is None or expected < ONE_CLASS_SHARE):
        return _finding(
            found,
            "Nearly every image gets the same class. Unless the photographs all show it, the images are prepared in "
            "another way than in training.",
        )
    return _passed(found)


def _confident(facts: Facts) -> Outcome:
    scores = facts.scores
    if scores is None or not scores.normalised:
        return _not_checked("no class probabilities")
    if scores.images < 4:
        return _not_checked("fewer than 4 images")
    if scores.classes < 2:
        return _not_checked("one score is no choice between classes")
    if not scores.finite_share:
        return _not_checked(_NOT_FINITE)
    share, median = scores.saturated_share, scores.median_confidence
    found = f"{share:.0%} of the images above {SATURATED_CONFIDENCE}, median {median:.3f}"
    if scores.saturated_share >= SATURATED_IMAGES:
        return _finding(
            found,
            "Probabilities this close to 1 on nearly every image are typical of pixels fed at 255 times their scale.",
        )
    chance = 1 / scores.classes
    if scores.median_confidence < min(2 * chance, chance + ABOVE_CHANCE * (1 - chance)):
        return _finding(
            found,
            f"The best of {scores.classes:,} classes is hardly likelier than chance: a softmax applied twice, an "
            "untrained network, or images prepared in another way than in training.",
        )
    return _passed(found)


def _dead(facts: Facts) -> Outcome:
    return _channels(
        facts,
        DEAD_SHARE,
        lambda count: count.dead,
        "dead",
        "A dead channel gives the same number for every unit of every image; its weights do no work.",
    )


def _saturated(facts: Facts) -> Outcome:
    return _channels(
        facts,
        SATURATED_SHARE,
        lambda count: count.saturated,
        "saturated",
        "A saturated channel sits at its own maximum in more than half of its units: a clipped range that is too "
        "small.",
    )


def _channels(facts: Facts, share: float, select: Callable[[ChannelCount], int], word: str, meaning: str) -> Outcome:
    counted = [count for count in facts.channels if count.channels]
    if not counted:
        return _not_checked("no value with channels was computed over the images")
    if facts.images < 2:
        return _not_checked("one image cannot vary")
    worst = max(counted, key=lambda count: select(count) / count.channels)
    found = f"worst: {select(worst):,} of {worst.channels:,} in {worst.value}"
    # With few images a deep channel may simply have met nothing that it looks for; a value silent as a whole has not.
    if facts.images < FEW_IMAGES:
        wholly = [count for count in counted if select(count) == count.channels]
        if wholly:
            return _finding(found, meaning, *(f"{count.value}: every one of {count.channels:,}" for count in wholly))
        return _not_checked(
            f"{facts.images} images are too few to call a channel {word}, {FEW_IMAGES} are needed ({found})"
        )
    over = [count for count in counted if select(count) > share * count.channels]
    if not over:
        return _passed(found)
    return _finding(
        found, meaning, *(f"{count.value}: {select(count):,} of {count.channels:,} {word}" for count in over)
    )


def _same(difference: Difference | None, missing: str, meaning: str, *, steps: int = 1) -> Outcome:
    if difference is None:
        return _not_checked(missing)
    allowed = RELATIVE_TOLERANCE * difference.scale + steps * difference.step
    found = f"{difference.largest:.2g} on outputs up to {difference.scale:.3g} ({difference.what})"
    # A NaN difference is not within any tolerance.
    if difference.largest <= allowed:
        return _passed(found)
    return _finding(found, meaning)


def _batch(facts: Facts) -> Outcome:
    return _same(
        facts.batch,
        "fewer than 2 images",
        "An image's result depends on its companions in the batch, or on chance: a batch size is baked into the graph, "
        "a normalisation was exported in training mode, or the graph draws random numbers.",
    )


def _taps(facts: Facts) -> Outcome:
    return _same(
        facts.taps,
        "no value was tapped",
        "Exposing intermediate values changes which operators onnxruntime fuses; here that changes the outputs, so the "
        "intermediate values shown are not quite those of the plain run.",
        steps=TAP_STEPS,
    )


def _skipped(facts: Facts) -> Outcome:
    if facts.unused_images:
        return _finding("none", f"No image was shown to the network: {facts.unused_images}.")
    if not facts.images and not facts.skipped:
        return _not_checked("no images")
    if not facts.skipped:
        return _passed(f"0 of {facts.images:,}")
    return _finding(
        f"{len(facts.skipped):,} of {facts.images + len(facts.skipped):,}",
        "These files are in no number of this report.",
        *(f"{name}: {reason}" for name, reason in facts.skipped),
    )


def _accuracy(facts: Facts) -> Outcome:
    if facts.scores is not None and not facts.scores.finite_share:
        return _not_checked(_NOT_FINITE)
    if facts.accuracy is None or facts.scores is None:
        return _not_checked("true classes are not known, or do not name the model's classes")
    least = max(LEAST_ACCURACY, min(0.9, CHANCES / max(facts.scores.classes, 1)))
    found = f"{facts.accuracy:.1%} of {facts.labelled:,} images"
    if facts.labelled < FEW_IMAGES:
        return _not_checked(f"{facts.labelled} labelled images are too few, {FEW_IMAGES} are needed ({found})")
    if facts.accuracy >= least:
        return _passed(found)
    return _finding(
        found, "Wrong preprocessing, labels in another order, or a label offset are likelier than a network this bad."
    )


def _features(facts: Facts) -> Outcome:
    if facts.feature_accuracy is None or facts.pixel_accuracy is None:
        return _not_checked("true classes are not known, or no class has two images")
    found = f"features {facts.feature_accuracy:.1%}, pixels {facts.pixel_accuracy:.1%} of {facts.compared:,} images"
    if facts.compared < FEW_IMAGES:
        return _not_checked(f"{facts.compared} labelled images are too few, {FEW_IMAGES} are needed ({found})")
    if facts.feature_accuracy >= facts.pixel_accuracy:
        return _passed(found)
    return _finding(
        found,
        "Neighbours by raw pixels name the class more often than neighbours by the network's own features: the "
        "features carry less of the class than the picture does.",
    )


def _distinct(facts: Facts) -> Outcome:
    if facts.duplicates is None:
        return _not_checked("near-duplicates were not sought")
    count = facts.duplicates
    pairs = f"{count.pairs:,} near-duplicate pair{'' if count.pairs == 1 else 's'}"
    found = f"{pairs}, {count.affected:,} of {count.images:,} images"
    if count.images < FEW_IMAGES:
        return _not_checked(f"{count.images} images are too few, {FEW_IMAGES} are needed ({found})")
    if count.conflicting:
        return _finding(
            f"{found}; {count.conflicting:,} with different labels",
            "Two images that are nearly one picture bear different labels: one label is wrong, or the classes overlap.",
            *count.details,
        )
    if count.affected > DUPLICATE_SHARE * count.images:
        return _finding(
            found,
            "What is nearly the same picture is counted more than once in every figure of this report; where the set "
            "was parted into training and test images, such pairs may stand on both sides.",
        )
    return _passed(found)


def _sections(facts: Facts) -> Outcome:
    if not facts.failed:
        return _passed("0")
    return _finding(
        f"{len(facts.failed)}",
        "A part of the examination ended in an error; what it would have shown is missing.",
        *(f"{name}: {error}" for name, error in facts.failed),
    )


RULES: tuple[Rule, ...] = (
    Rule("preprocess_known", "Preprocessing is known", "told, not guessed", _preprocessing),
    Rule("output_known", "Output is understood", "told, not guessed", _output),
    Rule("weights_finite", "Weights are finite", "0 NaN or infinite", _weights),
    Rule("values_finite", "Activations are finite", "0 NaN or infinite", _values),
    Rule(
        "predictions_vary",
        "Predictions follow the image",
        f"scores change by more than {CONSTANT_SPREAD:g}; one class on less than {ONE_CLASS_SHARE:.0%} of "
        f"{FEW_IMAGES} or more images",
        _constant,
    ),
    Rule(
        "confidence_plausible",
        "Confidence is plausible",
        f"above {SATURATED_CONFIDENCE} on less than {SATURATED_IMAGES:.0%} of the images; median at least twice "
        f"chance, or {ABOVE_CHANCE:g} of the way from it to 1",
        _confident,
    ),
    Rule("channels_alive", "Channels are alive", f"at most {DEAD_SHARE:.0%} dead in any value", _dead),
    Rule("channels_unsaturated", "Channels are unsaturated", f"at most {SATURATED_SHARE:.0%} in any value", _saturated),
    Rule(
        "accuracy",
        "Predictions are right",
        f"at least {LEAST_ACCURACY:.0%} and {CHANCES:g} times chance",
        _accuracy,
    ),
    Rule(
        "features_beat_pixels",
        "Features beat pixels",
        "accuracy at least that of pixels",
        _features,
    ),
    Rule(
        "images_distinct",
        "Images are distinct",
        f"at most {DUPLICATE_SHARE:.0%} have a near-duplicate, none one with another label",
        _distinct,
    ),
    Rule(
        "batch_equals_single",
        "Batches change nothing",
        f"{RELATIVE_TOLERANCE:g} of the largest output; 1 step of an integer output",
        _batch,
    ),
    Rule(
        "taps_change_nothing",
        "Taps change nothing",
        f"{RELATIVE_TOLERANCE:g} of the largest output; {TAP_STEPS} steps of an integer output",
        _taps,
    ),
    Rule("images_read", "Every image file was read", "0 skipped", _skipped),
    Rule("sections_complete", "Every section ran", "0 errors", _sections),
)
