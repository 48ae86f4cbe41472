"""The order of work of an audit: open, examine section by section, judge, and publish the report as a whole."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxviz.errors import InputError, LimitError, ModelError, OnnxvizError
from onnxviz.inputs.images import ImageSet, load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.target import resolve_target
from onnxviz.report.budget import DEFAULT_OCCLUSION_MACS, macs_text
from onnxviz.report.collect import results_json
from onnxviz.report.examination import Examination, Options
from onnxviz.report.numbers import json_bytes
from onnxviz.report.page import Examined, render_page
from onnxviz.report.rules import Verdict, evaluate
from onnxviz.report.section import Section, SectionSkipped
from onnxviz.report.sections import SECTIONS, Outline
from onnxviz.report.writer import ReportFolder
from onnxviz.runtime.model import Model
from onnxviz.runtime.opening import load
from onnxviz.runtime.output import OutputContract

__all__ = ["DEFAULT_LIMIT", "AuditResult", "audit"]

DEFAULT_LIMIT = 2000
"""Images examined unless told otherwise: enough for every rule, and minutes rather than hours on a laptop."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done now, how many steps are done, and how many there are."""

Images = str | Path | Sequence[Any] | Any

_ONLY = "model"
"""Name of the set where one model was given."""


@dataclass(frozen=True)
class AuditResult:
    """What an audit wrote."""

    path: Path
    """The report's folder; ``index.html`` and ``results.json`` lie in it."""
    findings: tuple[Verdict, ...]
    """The rules that found something; empty does not mean that all is well, only that these rules passed."""
    verdicts: Mapping[str, tuple[Verdict, ...]]
    """Every rule's line, by the name of the model's set (``"model"`` where one model was given)."""
    sections: Mapping[str, Mapping[str, str]]
    """By the same name, section name to ``"made"``, ``"skipped: reason"`` or ``"failed: error"``."""
    exit_code: int
    """0 without findings, 1 with."""


@dataclass(frozen=True)
class _Subject:
    """One model to examine, not opened yet."""

    name: str
    title: str
    subtitle: str
    open_model: Callable[[float | None], Model]
    read_images: Callable[[Model], ImageSet] | None


def audit(
    model: Model | str | Path | None = None,
    images: Images | None = None,
    *,
    out: str | Path = "report",
    labels: str | Path | Sequence[str] | Mapping[int, str] | None = None,
    preprocess: str | Path | Mapping[str, Any] | Preprocess | None = None,
    output: str | Mapping[str, Any] | OutputContract | None = None,
    values: str | Sequence[str] | None = None,
    target: Any = "top1",
    limit: int | None = DEFAULT_LIMIT,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    timeout: float | None = None,
    occlusion_budget: int = DEFAULT_OCCLUSION_MACS,
    external_data_root: str | Path | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Examine a model on images and write the report.

    Parameters
    ----------
    model : Model, path or None
        None examines the models that come with onnxviz on their own images.
    images : path, sequence, array, ImageSet or None
        What :func:`onnxviz.load_images` takes. None leaves out the sections that need images.
    out : path
        Folder of the report. An earlier report there is replaced in one step when the new one is complete; any other
        folder that holds files is refused.
    labels, preprocess, output, device, threads, external_data_root
        As in :func:`onnxviz.load`; only where ``model`` is a path.
    values : str or sequence of str
        Names or globs of the values whose activations and patches are shown; None chooses some over the depth.
    target : as in :func:`onnxviz.occlusion`
        What the occlusion maps explain.
    limit : int or None
        Most images to examine, drawn evenly over the class folders by ``seed``; None examines all.
    seed : int
        Seed of everything random.
    timeout : float or None
        Seconds for the whole audit; a model that hangs is stopped too.
    occlusion_budget : int
        Multiply-accumulates to spend on the occlusion maps of one model; from it and the model's own count follow how
        many images get one, and at which stride.
    progress : callable or None
        Called with (what, steps done, steps).

    Returns
    -------
    AuditResult

    Raises
    ------
    OnnxvizError
        The model, the images, a name or a parameter cannot be used (then nothing is written), the time is up, or the
        report cannot be written (then what stood at ``out`` is unchanged).
    """
    _check(limit=limit, timeout=timeout, occlusion_budget=occlusion_budget)
    deadline = None if timeout is None else time.monotonic() + timeout
    patterns = () if values is None else (values,) if isinstance(values, str) else tuple(values)
    options = Options(values=patterns, target=target, seed=seed, occlusion_budget=occlusion_budget)
    arguments: dict[str, Any] = {
        "labels": labels, "preprocess": preprocess, "output": output, "external_data_root": external_data_root,
    }  # fmt: skip
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if device != "auto":
        arguments["device"] = device
    if threads is not None:
        arguments["threads"] = threads
    subjects = list(_subjects(model, images, arguments))
    work = _Work(progress, steps=len(subjects) * (len(SECTIONS) + 1) + 1)
    started = dt.datetime.now(dt.UTC)

    with ReportFolder(out) as folder:
        examined, examinations = [], []
        for subject in subjects:
            work.begin(f"{subject.title}: opening")
            exam = _open(subject, options, limit, seed, deadline)
            sections = _examine(exam, subject.title, work, deadline)
            verdicts = evaluate(exam.facts)
            examined.append(
                Examined(
                    subject.name, subject.title, subject.subtitle or _subtitle(exam),
                    bool(exam.facts.preprocess.get("guessed")), verdicts, sections,
                )
            )  # fmt: skip
            examinations.append(exam)
            exam.shared.clear()
        work.begin("writing the report")
        findings = tuple(line for one in examined for line in one.verdicts if line.status == "finding")
        parameters = {
            "values": list(patterns), "target": target if isinstance(target, (str, int)) else str(target),
            "limit": limit, "seed": seed, "threads": threads, "device": device, "occlusion_budget": occlusion_budget,
        }  # fmt: skip
        document = results_json(
            folder.add, examined, examinations, parameters=parameters, exit_code=int(bool(findings))
        )
        folder.add("results.json", json_bytes(document))
        folder.add("index.html", render_page(_title(examined), examined, facts=_foot(examinations, parameters)))
        work.end()
        folder.add("run.json", json_bytes(_run(started, work, timeout, examinations)))
        path = folder.publish()
    return AuditResult(
        path=path,
        findings=findings,
        verdicts={one.name: tuple(one.verdicts) for one in examined},
        sections={one.name: {section.name: _state(section) for section in one.sections} for one in examined},
        exit_code=int(bool(findings)),
    )


class _Work:
    """Progress reports, and how long each step took."""

    def __init__(self, progress: Progress | None, *, steps: int) -> None:
        self._progress = progress
        self._steps = steps
        self._since = time.monotonic()
        self.seconds: list[tuple[str, float]] = []
        self._now = ""

    def begin(self, what: str) -> None:
        self.end()
        if self._progress is not None:
            self._progress(what, len(self.seconds), self._steps)
        self._now, self._since = what, time.monotonic()

    def end(self) -> None:
        if self._now:
            self.seconds.append((self._now, time.monotonic() - self._since))
            self._now = ""


def _check(*, limit: int | None, timeout: float | None, occlusion_budget: int) -> None:
    for name, value, least in (("limit", limit, 1), ("occlusion_budget", occlusion_budget, 0)):
        if value is not None and value < least:
            raise InputError("too small", where=name, got=str(value), allowed=f"{least} or more")
    if timeout is not None and not timeout > 0:
        raise InputError("must be a time", where="timeout", got=str(timeout), allowed="more than 0 seconds")


def _subjects(model: Model | str | Path | None, images: Images | None, arguments: dict[str, Any]) -> Iterator[_Subject]:
    if isinstance(model, Model):
        if arguments:
            raise InputError(
                "the model is already opened",
                where=", ".join(arguments),
                next_step="Give these to onnxviz.load instead",
            )
        opened = model

        def reuse(timeout: float | None) -> Model:
            opened.set_timeout(timeout)
            return opened

        yield _Subject(_ONLY, model.name, "", reuse, _reader(images))
    elif model is not None:
        path = Path(model)
        yield _Subject(_ONLY, path.name, "", lambda timeout: load(path, timeout=timeout, **arguments), _reader(images))
    else:
        yield from _embedded(images, arguments)


def _embedded(images: Images | None, arguments: dict[str, Any]) -> Iterator[_Subject]:
    from onnxviz.embedded import embedded_sets

    useless: list[str] = [name for name in ("labels", "preprocess", "output") if name in arguments]
    if images is not None:
        useless.insert(0, "images")
    if useless:
        raise InputError(
            "without a model there is nothing to use it on",
            where=", ".join(useless),
            next_step="Name a model, or leave it out to examine the models that come with onnxviz",
        )
    for one in embedded_sets():
        known = {"labels": one.labels, "preprocess": one.preprocess}

        def open_one(timeout: float | None, path: Path = one.model, known: dict[str, Any] = known) -> Model:
            stated = {name: value for name, value in known.items() if value is not None}
            return load(path, timeout=timeout, **stated, **arguments)

        yield _Subject(one.name, one.title, one.note, open_one, one.load_images if one.image_file else None)


def _reader(images: Images | None) -> Callable[[Model], ImageSet] | None:
    return None if images is None else lambda model: load_images(images, model)


def _open(subject: _Subject, options: Options, limit: int | None, seed: int, deadline: float | None) -> Examination:
    model = subject.open_model(None if deadline is None else max(0.0, deadline - time.monotonic()))
    for pattern in options.values:
        model.values(pattern)  # a name that is not there ends the audit before the work begins
    images: ImageSet | None = None
    reason = ""
    if model.preprocess is None:
        reason = model.no_image_reason
        if len(model.inputs) > 1 and model.image_input is not None:
            reason = f"the model has {len(model.inputs)} inputs, so images alone do not feed it"
    elif len(model.inputs) != 1:
        reason = f"the model has {len(model.inputs)} inputs, so images alone do not feed it"
    elif subject.read_images is None:
        reason = "no images were given"
    else:
        images = subject.read_images(model)
        if limit is not None and len(images) > limit:
            images = images.sample(limit, seed)
    exam = Examination(model, images, reason, options)
    if images is None and subject.read_images is not None:
        exam.facts.unused_images = reason
    if images is not None and options.target != "top1" and subject.name == _ONLY:
        # A class or an element that does not exist ends the audit here too; of several models one may lack it.
        with contextlib.suppress(SectionSkipped):
            resolve_target(model, options.target, exam.first_batch.tensor[:1])
    return exam


def _examine(exam: Examination, title: str, work: _Work, deadline: float | None) -> list[Section]:
    sections = {outline.name: outline.empty() for outline in SECTIONS}
    if exam.images is not None:
        exam.facts.skipped = [(skipped.name, skipped.reason) for skipped in exam.images.skipped]
        exam.facts.images = len(exam.images)
    for outline in sorted(SECTIONS, key=lambda outline: outline.last):
        work.begin(f"{title}: {outline.title[0].lower()}{outline.title[1:]}")
        _make(exam, outline, sections, deadline)
        if exam.images is not None:
            exam.facts.skipped = [(skipped.name, skipped.reason) for skipped in exam.images.skipped]
    return [sections[outline.name] for outline in SECTIONS]


def _make(exam: Examination, outline: Outline, sections: dict[str, Section], deadline: float | None) -> None:
    try:
        outline.make(exam, sections[outline.name])
        return
    except SectionSkipped as reason:
        state, text = "skipped", str(reason)
    except OSError:
        raise
    except OnnxvizError as error:
        if isinstance(error, LimitError) and deadline is not None and time.monotonic() >= deadline:
            raise
        # What a method refuses for this model is no defect of the model; what breaks in a run is.
        refused = not isinstance(error, (LimitError, ModelError))
        state, text = ("skipped" if refused else "failed"), str(error)
    except Exception as error:
        if os.environ.get("ONNXVIZ_TRACEBACK"):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        state = "failed"
        text = f"internal error in {Path(place.filename).name}, line {place.lineno}: {type(error).__name__}: {error}"
    made = outline.empty()
    # Half a section is none: only the numbers that explain the refusal stay.
    sections[outline.name] = replace(made, status=state, reason=text, numbers=sections[outline.name].numbers)
    if state == "failed":
        exam.facts.failed.append((outline.title, text))


def _state(section: Section) -> str:
    return section.status if section.status == "made" else f"{section.status}: {section.reason}"


def _title(examined: Sequence[Examined]) -> str:
    return examined[0].title if len(examined) == 1 else "The models that come with onnxviz"


def _subtitle(exam: Examination) -> str:
    count = exam.facts.images if exam.images is not None else 0
    images = f"{count:,} image{'' if count == 1 else 's'}" if count else "no images"
    return f"SHA-256 {exam.model.sha256[:16]}…, {macs_text(exam.model.macs)} an image, {images}"


def _foot(examinations: Sequence[Examination], parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = examinations[0].model.provenance("audit", {}).versions if examinations else {}
    return [
        *((name, version) for name, version in versions.items()),
        *((name.replace("_", " "), str(value)) for name, value in parameters.items() if value not in (None, [])),
    ]


def _run(
    started: dt.datetime, work: _Work, timeout: float | None, examinations: Sequence[Examination]
) -> dict[str, Any]:
    """What differs from run to run and from machine to machine."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(sum(seconds for _, seconds in work.seconds), 3),
        "steps": [{"step": what, "seconds": round(seconds, 3)} for what, seconds in work.seconds],
        "timeout": timeout,
        "models": [str(exam.model.path) for exam in examinations],
        "host": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
    }
