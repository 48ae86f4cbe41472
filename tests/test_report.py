"""``audit``: what a report holds, that it is the same each time, that names stay text, and that it is whole or not there."""

from __future__ import annotations

import base64
import errno
import hashlib
import html.parser
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import onnxviz as ov
from embedded_cifar import PATH, cifar_model, pictures
from graphs import build, save, tiny_network
from onnxviz.disk import write_file
from onnxviz.errors import InputError, LimitError, ValueNotFoundError
from onnxviz.report import AuditResult, audit
from onnxviz.report.budget import plan_occlusion
from onnxviz.report.numbers import array_bytes, describe_array, json_bytes, plain
from onnxviz.report.writer import ReportFolder

HOSTILE = "<img src=x onerror=alert(1)>&amp;\"'"
COUNT = 21
BUDGET = 3 * 10**9
VALUE = "*features.6/Relu*"


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text between them."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self._in_style = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        (self.styles if self._in_style else self.text).append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def photographs(folder: Path, count: int = COUNT) -> Path:
    """Class folders of PNG files, with two files that are no images."""
    names = ["cat", "dog", "ship"]
    for index, picture in enumerate(pictures(count)):
        place = folder / names[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{index:03d}.png")
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "dog" / "cut.png").write_bytes((folder / "dog" / "001.png").read_bytes()[:60])
    return folder


def run(folder: Path, images: Any, **options: Any) -> AuditResult:
    return audit(
        PATH,
        images,
        out=folder,
        **{"threads": 1, "device": "cpu", "occlusion_budget": BUDGET, "values": [VALUE]} | options,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs") / "images")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, images: Path) -> AuditResult:
    return run(tmp_path_factory.mktemp("audit") / "report", images)


@pytest.fixture(scope="module")
def document(report: AuditResult) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((report.path / "results.json").read_bytes())
    return parsed


def rules(result: AuditResult) -> dict[str, Any]:
    return {line.rule: line for line in result.verdicts["model"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What results.json says


def test_results_name_model_contracts_parameters_and_versions(document: dict[str, Any]) -> None:
    assert document["report"] == "onnxviz"
    assert document["schema_version"] == 1
    assert document["exit_code"] == 1
    assert document["parameters"] == {
        "values": [VALUE], "target": "top1", "limit": 2000, "seed": 0, "threads": 1, "device": "cpu",
        "occlusion_budget": BUDGET,
    }  # fmt: skip
    (model,) = document["models"]
    assert model["model"] == {"file": PATH.name, "sha256": hashlib.sha256(PATH.read_bytes()).hexdigest()}
    contract = model["input_contract"]
    assert contract["size"] == [32, 32]
    assert contract["guessed"] is False
    assert len(contract["mean"]) == len(contract["std"]) == 3
    assert {"fit", "interpolation", "channels", "scale", "layout", "dtype", "source", "why"} <= set(contract)
    assert model["output_contract"]["kind"] == "logits"
    assert model["output_contract"]["classes"] == 10
    assert len(model["labels"]) == 10
    names = {name.lower().removesuffix("-gpu") for name in model["versions"]}
    assert {"onnxruntime", "onnx", "numpy", "pillow"} <= names


def test_every_section_is_made(report: AuditResult, document: dict[str, Any]) -> None:
    states = dict(report.sections["model"])
    assert states.pop("hubness") == f"skipped: {COUNT + 1} images; at least 50 are needed"
    # The small budget here pays no ascent and no trial.
    assert states.pop("class_pictures").startswith("skipped: too costly: One step,")
    assert states.pop("trust").startswith("skipped: too costly: One trial")
    assert set(states.values()) == {"made"}, states
    for name in states:
        section = document["models"][0]["sections"][name]
        assert len(section["reading"]) == 2, name
        assert section["numbers"], name


def test_skipped_files_are_listed_with_reasons(report: AuditResult, document: dict[str, Any]) -> None:
    skipped = {entry["file"]: entry["reason"] for entry in document["models"][0]["skipped_files"]}
    assert set(skipped) == {"cat/notes.txt", "dog/cut.png"}
    assert all(len(reason) > 8 for reason in skipped.values())
    assert rules(report)["images_read"].status == "finding"
    assert len(rules(report)["images_read"].details) == 2


def test_arrays_and_figures_are_there_with_their_digests(report: AuditResult, document: dict[str, Any]) -> None:
    listed = set()
    for section in document["models"][0]["sections"].values():
        for entry in section["arrays"].values():
            data = (report.path / entry["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
            array = np.load(report.path / entry["file"], allow_pickle=False)
            assert list(array.shape) == entry["shape"]
            assert array.dtype.name == entry["dtype"]
            listed.add(entry["file"])
        for entry in section["figures"]:
            data = (report.path / entry["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
            assert data.startswith(b"\x89PNG")
            listed.add(entry["file"])
    on_disk = {name for name in contents(report.path) if name.startswith(("arrays/", "figures/"))}
    assert on_disk == listed
    assert {"arrays/occlusion-probability_0.npy", "arrays/embedding-features.npy"} <= on_disk


def test_numbers_are_those_of_the_methods(report: AuditResult, document: dict[str, Any], images: Path) -> None:
    model = ov.load(PATH, device="cpu", threads=1)
    expected = ov.predictions(model, ov.load_images(images, model))
    top = np.load(report.path / "arrays" / "predictions-top.npy")
    np.testing.assert_array_equal(top, expected.top)
    shown = document["models"][0]["sections"]["predictions"]["numbers"]
    assert shown["accuracy"] == expected.accuracy
    features = np.load(report.path / "arrays" / "embedding-features.npy")
    assert features.shape == (COUNT, 4096)


def test_what_differs_from_run_to_run_is_in_run_json(report: AuditResult) -> None:
    timings = json.loads((report.path / "run.json").read_bytes())
    assert timings["seconds"] == pytest.approx(sum(step["seconds"] for step in timings["steps"]), abs=0.1)
    assert timings["host"]["processors"] == os.cpu_count()
    assert {"index.html", "results.json", "run.json", "arrays", "figures"} == {
        path.name for path in report.path.iterdir()
    }


def test_a_second_run_gives_the_same_bytes(report: AuditResult, images: Path, tmp_path: Path) -> None:
    again = contents(run(tmp_path / "elsewhere", images).path)
    first = contents(report.path)
    assert set(again) == set(first)
    assert [name for name in first if first[name] != again[name] and name != "run.json"] == []


def test_no_number_is_lost_silently() -> None:
    value, lost = plain({"a": [1.0, float("nan"), np.float32("inf")], "b": np.array([[np.nan, 2]]), "c": Path("/x/y")})
    assert value == {"a": [1.0, None, None], "b": [[None, 2.0]], "c": "y"}
    assert lost == 3
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes(float("nan"))
    array = np.array([np.nan, np.inf, 1.0, -np.inf], ">f4")
    entry = describe_array("x.npy", array, array_bytes(array))
    assert (entry["nan"], entry["infinite"]) == (1, 2)


# The page


def test_page_is_self_contained(report: AuditResult) -> None:
    source = (report.path / "index.html").read_text(encoding="utf-8")
    page = Page(source)
    sources = [attributes["src"] for tag, attributes in page.tags if "src" in attributes]
    assert len(sources) == len(list((report.path / "figures").iterdir())) >= 10
    assert all(re.fullmatch(r"data:image/webp;base64,[A-Za-z0-9+/=]+", source) for source in sources)
    links = [attributes["href"] for tag, attributes in page.tags if "href" in attributes]
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert links
    assert {link.removeprefix("#") for link in links} <= targets
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    without_pictures = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", source)
    assert not re.search(r"https?:|file:|//[a-z]|url\(|@import", without_pictures)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_policy_allows_the_style_by_its_digest_and_nothing_else(report: AuditResult) -> None:
    page = Page((report.path / "index.html").read_text(encoding="utf-8"))
    (policy,) = (a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    digest = base64.b64encode(hashlib.sha256("".join(page.styles).encode()).digest()).decode()
    assert directives["style-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy
    assert not any("style" in attributes or any(a.startswith("on") for a in attributes) for _, attributes in page.tags)


def test_page_shows_verdict_skipped_files_and_reasons(report: AuditResult, document: dict[str, Any]) -> None:
    page = Page((report.path / "index.html").read_text(encoding="utf-8"))
    for line in report.verdicts["model"]:
        assert line.title in page.words
        assert " ".join((line.found or line.why).split()) in page.words
    for entry in document["models"][0]["skipped_files"]:
        assert entry["file"] in page.words
        assert " ".join(entry["reason"].split()) in page.words


def test_names_are_text(tmp_path: Path) -> None:
    """File, folder, label, node and value names with markup in them, in every place where they are shown."""
    proto = onnx.load(PATH)
    (head,) = (node for node in proto.graph.node if proto.graph.output[0].name in node.output)
    for node in proto.graph.node:
        node.name = f"{HOSTILE}{node.name}"
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if "Relu" in name:
                    names[index] = f"{HOSTILE}{name}"
    del proto.metadata_props[:]
    path = save(proto, tmp_path / "<b>model<script>.onnx")
    folder = tmp_path / "images" / "<i onload=alert(2)>&lt;"
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures(4)):
        Image.fromarray(picture).save(folder / f"{index}<svg onload=alert(3)>.png")
    (folder / "<style>*{}").write_text("no image")
    (folder / "\udcff\n\u202ex.png").write_text("no image either")
    result = audit(
        path, tmp_path / "images", out=tmp_path / "report", preprocess="cifar10",
        labels=[f"</title><script>{index}</script>" for index in range(10)], occlusion_budget=0, device="cpu",
        values=[f"{HOSTILE}*features.2/*"],
    )  # fmt: skip
    assert not [state for state in result.sections["model"].values() if state.startswith("failed")]
    page = Page((result.path / "index.html").read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "nav", "ul", "li", "a", "main", "section", "h1",
        "h2", "h3", "h4", "p", "strong", "div", "span", "details", "summary", "bdi", "article", "table", "thead",
        "tbody", "tr", "th", "td", "figure", "img", "figcaption", "footer", "dl", "dt", "dd",
    }  # fmt: skip
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for text in ("<b>model<script>.onnx", HOSTILE, "<svg onload=alert(3)>", "<style>*{}", "</title><script>"):
        assert text in page.words, text
    json.loads((result.path / "results.json").read_bytes())
    assert head.name.startswith(HOSTILE)


# Findings


def with_weights(change: Callable[[dict[str, np.ndarray]], None], path: Path) -> Path:
    proto = onnx.load(PATH)
    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    change(weights)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return save(proto, path)


def test_a_nan_weight_is_found_by_name_and_counted(tmp_path: Path) -> None:
    planted = []

    def plant(weights: dict[str, np.ndarray]) -> None:
        name = next(name for name, array in weights.items() if array.shape == (64, 3, 7, 7) or array.ndim == 4)
        weights[name][0, 0, 0, :2] = np.nan, np.inf
        planted.append(name)

    result = audit(
        with_weights(plant, tmp_path / "nan.onnx"), list(pictures(3)), out=tmp_path / "report", values=[VALUE], occlusion_budget=0,
        device="cpu",
    )  # fmt: skip
    assert result.exit_code == 1
    line = rules(result)["weights_finite"]
    assert line.status == "finding"
    assert line.found.startswith("2 in 1 of ")
    assert line.details == (f"{planted[0]}: 2 NaN or infinite",)
    assert rules(result)["values_finite"].status == "finding"
    document = json.loads((result.path / "results.json").read_bytes())
    lost = [section["not_finite_shown_as_null"] for section in document["models"][0]["sections"].values()]
    assert sum(lost) > 0


def test_constant_predictions_are_a_finding(tmp_path: Path) -> None:
    def kill(weights: dict[str, np.ndarray]) -> None:
        for array in weights.values():
            if array.ndim == 2:
                array[:] = 0

    result = audit(
        with_weights(kill, tmp_path / "dead.onnx"), list(pictures(3)), out=tmp_path / "report", values=[VALUE], occlusion_budget=0,
        device="cpu",
    )  # fmt: skip
    assert result.exit_code == 1
    assert rules(result)["predictions_vary"].status == "finding"


def test_a_guessed_preprocessing_is_on_every_picture(tmp_path: Path) -> None:
    proto = onnx.load(PATH)
    del proto.metadata_props[:]
    result = audit(
        save(proto, tmp_path / "bare.onnx"), list(pictures(3)), out=tmp_path / "report", occlusion_budget=0,
        device="cpu",
    )  # fmt: skip
    assert result.exit_code == 1
    assert rules(result)["preprocess_known"].status == "finding"
    page = Page((result.path / "index.html").read_text(encoding="utf-8"))
    pictures_shown = sum(tag == "img" for tag, _ in page.tags)
    assert pictures_shown >= 5
    assert page.words.count("preprocessing guessed") == pictures_shown


def test_without_findings_the_code_is_zero(tmp_path: Path) -> None:
    result = audit(
        cifar_model(), list(pictures(3)), out=tmp_path / "report", occlusion_budget=0, values=["*features.2/Relu*"],
    )  # fmt: skip
    assert result.findings == ()
    assert result.exit_code == 0
    assert "No findings" in (result.path / "index.html").read_text(encoding="utf-8")


def test_sections_that_cannot_be_made_say_why(tmp_path: Path) -> None:
    """A network without a convolution, on images; and one that takes no image at all."""
    node = onnx.helper.make_node
    random_ = np.random.default_rng(1)
    weights = {"w": random_.standard_normal((192, 5)).astype(np.float32), "b": np.zeros(5, np.float32)}
    dense = build(
        [node("Flatten", ["image"], ["flat"]), node("Gemm", ["flat", "w", "b"], ["scores"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"scores": ("float", ["n", 5])}, weights=weights,
    )  # fmt: skip
    result = audit(save(dense, tmp_path / "dense.onnx"), list(pictures(3)), out=tmp_path / "dense", device="cpu")
    states = result.sections["model"]
    assert states["filters"] == "skipped: no convolution in this graph"
    assert states["patches"].startswith("skipped: 3 images; at least 4 are needed")
    assert states["grid"].startswith("skipped: 3 images")
    assert states["predictions"] == states["occlusion"] == "made"
    assert not [state for state in states.values() if state.startswith("failed")]

    table = build(
        [node("Gemm", ["row", "w", "b"], ["scores"])],
        inputs={"row": ("float", ["n", 192])}, outputs={"scores": ("float", ["n", 5])}, weights=weights,
    )  # fmt: skip
    result = audit(save(table, tmp_path / "table.onnx"), list(pictures(3)), out=tmp_path / "table", device="cpu")
    assert result.sections["model"]["predictions"].startswith("skipped: the model takes no image: 'row' has 2 axes")
    assert result.sections["model"]["model"] == "made"
    # Whoever gave pictures is told that nobody looked at them.
    assert "No image was shown to the network" in (result.path / "index.html").read_text(encoding="utf-8")


def test_without_images_the_model_alone_is_examined(tmp_path: Path) -> None:
    result = audit(PATH, out=tmp_path / "report", device="cpu")
    states = result.sections["model"]
    made = {name for name, state in states.items() if state == "made"}
    assert made == {"model", "filters", "class_pictures", "provenance"}
    assert states["occlusion"] == "skipped: no images were given"


# Bad arguments: nothing is written


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"limit": 0}, InputError, "limit"),
        ({"timeout": -1.0}, InputError, "timeout"),
        ({"occlusion_budget": -1}, InputError, "occlusion_budget"),
        ({"values": ["/features/features.2/Relu_output"]}, ValueNotFoundError, "'/features/features.2/Relu_output_0'"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        audit(PATH, list(pictures(2)), out=tmp_path / "report", device="cpu", **options)
    assert list(tmp_path.iterdir()) == []


def test_arguments_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without a model"):
        audit(None, list(pictures(2)), out=tmp_path / "report")
    with pytest.raises(InputError, match="already opened"):
        audit(cifar_model(), list(pictures(2)), out=tmp_path / "report", labels=["a"])


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        audit(PATH, out=tmp_path, device="cpu")
    assert precious.read_text() == "years of work"
    # A folder that only looks like a report is no report either.
    (tmp_path / "looks").mkdir()
    (tmp_path / "looks" / "results.json").write_text('{"report": "something else"}')
    with pytest.raises(InputError, match="not an onnxviz report"):
        audit(PATH, out=tmp_path / "looks", device="cpu")
    with pytest.raises(InputError, match="is a file"):
        audit(PATH, out=precious, device="cpu")
    with pytest.raises(InputError, match="does not exist"):
        audit(PATH, out=tmp_path / "missing" / "report", device="cpu")


# Whole or not at all


WRITER = """
import os, sys
from onnxviz.report.writer import ReportFolder
number = 0
print("ready", flush=True)
while True:
    number += 1
    with ReportFolder(sys.argv[1]) as folder:
        for index in range(12):
            folder.add(f"arrays/{index}.npy", f"{number}".encode() * 500)
        folder.add("results.json", ('{"report": "onnxviz", "number": %d}' % number).encode())
        folder.add("index.html", f"{number}".encode())
        folder.publish()
"""


def check_whole(report: Path) -> int:
    number = int(json.loads((report / "results.json").read_bytes())["number"])
    assert {path.name for path in report.iterdir()} == {"arrays", "results.json", "index.html"}
    assert (report / "index.html").read_text() == str(number)
    assert {path.read_text() for path in (report / "arrays").iterdir()} == {str(number) * 500}
    assert len(list((report / "arrays").iterdir())) == 12
    return number


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("kills", [8, pytest.param(60, marks=pytest.mark.slow)], indirect=True)
def test_a_kill_at_any_time_leaves_a_whole_report(kills: int, tmp_path: Path) -> None:
    report = tmp_path / "report"
    generator = random.Random(7)
    last = 0
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(report)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if not last:
            while not (report / "results.json").exists():
                time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        last = check_whole(report)
    # What the last victim left is swept away by the next run, which writes as if nothing had happened.
    with ReportFolder(report) as folder:
        folder.add("results.json", b'{"report": "onnxviz"}')
        folder.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert [path.name for path in report.iterdir()] == ["results.json"]


def test_two_audits_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    with ReportFolder(tmp_path / "one") as one, ReportFolder(tmp_path / "two") as two:
        for number, folder in enumerate((one, two)):
            folder.add("results.json", json.dumps({"report": "onnxviz", "number": number}).encode())
        one.publish()
        two.publish()
    assert json.loads((tmp_path / "two" / "results.json").read_bytes())["number"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)], indirect=True)
def test_a_killed_audit_leaves_the_old_report(kills: int, tmp_path: Path) -> None:
    """The whole command, killed when a later section has begun each time; the run after that is undisturbed."""
    save(tiny_network(), tmp_path / "tiny.onnx")
    report = tmp_path / "report"
    report.mkdir()
    (report / "results.json").write_text('{"report": "onnxviz", "old": true}')
    command = [
        sys.executable, "-c", "from onnxviz.cli import main; main()", "audit", "tiny.onnx", "-o", "report",
    ]  # fmt: skip

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    for number in range(kills):
        child = begin()
        assert child.stderr is not None
        for _ in range(4 + number % 10):
            child.stderr.readline()
        child.send_signal(signal.SIGKILL)
        child.communicate()
        document = json.loads((report / "results.json").read_bytes())
        assert document.get("old") or (report / "index.html").read_bytes().rstrip().endswith(b"</html>")
    child = begin()
    _, err = child.communicate()
    assert child.returncode in (0, 1), err
    assert {path.name for path in report.iterdir()} == {"index.html", "results.json", "run.json", "arrays", "figures"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "tiny.onnx"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """An earlier report that must survive."""
    with ReportFolder(tmp_path / "report") as folder:
        folder.add("results.json", b'{"report": "onnxviz"}')
        return folder.publish()


@pytest.mark.parametrize("at", [0, 3, 9])
def test_a_full_disk_leaves_the_old_report(
    at: int, published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(published)
    synced = 0

    def full(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        LimitError, match=r"report: the disk is full; what was there before is unchanged\. Free"
    ) as error:
        audit(PATH, out=published, device="cpu")
    assert str(error.value).startswith(str(published))
    assert contents(published) == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_disk_that_is_really_full(limited_disk: Path) -> None:
    with ReportFolder(limited_disk / "report") as folder:
        folder.add("results.json", b'{"report": "onnxviz"}')
        folder.publish()

    def too_much() -> None:
        with ReportFolder(limited_disk / "report") as folder:
            for index in range(64):
                folder.add(f"figures/{index}.png", os.urandom(1 << 16))

    with pytest.raises(LimitError, match="disk is full"):
        too_much()
    assert contents(limited_disk / "report") == {"results.json": b'{"report": "onnxviz"}'}
    assert [path.name for path in limited_disk.iterdir()] == ["report"]
    with pytest.raises(LimitError, match="disk is full"):
        write_file(limited_disk / "numbers.json", b"0" * (1 << 21))
    assert [path.name for path in limited_disk.iterdir()] == ["report"]


AS_NOBODY = """
import os, sys
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
from onnxviz.report.writer import ReportFolder
try:
    with ReportFolder("locked/report") as folder:
        folder.add("results.json", b"{}")
        folder.publish()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_permission_it_says_so(tmp_path: Path) -> None:
    """By an ordinary user; root may write anywhere, so it becomes one first."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    (tmp_path / "locked").mkdir(mode=0o555)
    # What the child imports must be readable for it: the package is imported before the user changes.
    code = "import onnxviz.report.writer\n" + AS_NOBODY
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("InputError locked/report: no permission to write there"), done.stderr
    assert list((tmp_path / "locked").iterdir()) == []


def test_an_error_in_a_section_is_a_finding_and_the_rest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxviz.report.sections.filters as section

    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.delenv("ONNXVIZ_TRACEBACK", raising=False)
    monkeypatch.setattr(section, "filters", broken)
    result = audit(save(tiny_network(), tmp_path / "m.onnx"), out=tmp_path / "report", device="cpu")
    assert re.fullmatch(
        r"failed: internal error in test_report\.py, line \d+: ZeroDivisionError: planted",
        result.sections["model"]["filters"],
    )
    assert result.sections["model"]["model"] == "made"
    assert result.exit_code == 1
    assert rules(result)["sections_complete"].status == "finding"


def test_occlusion_plan_follows_from_the_work() -> None:
    free = plan_occlusion(10**6, 224, 224, 100, budget=10**12)
    assert (free.images, free.window, free.stride, free.positions) == (6, 32, 8, 25 * 25)
    assert free.macs == 6 * 626 * 10**6
    dear = plan_occlusion(2 * 10**9, 224, 224, 100, budget=4 * 10**11)
    assert (dear.images, dear.stride) == (4, 32)
    assert dear.macs == 4 * 50 * 2 * 10**9
    # One coarse map stands even where it costs up to four budgets.
    assert plan_occlusion(10**10, 224, 224, 100, budget=2 * 10**11).images == 1
    none = plan_occlusion(10**11, 224, 224, 100, budget=10**12)
    assert none.images == 0
    assert "One run costs 100 GMAC" in none.text
    assert plan_occlusion(10**6, 32, 32, 2, budget=10**12).images == 2
