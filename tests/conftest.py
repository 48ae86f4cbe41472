"""Fixtures every test may ask for, and the two switches ``--slow`` and ``--update-golden``."""

from __future__ import annotations

import os
import re
import signal

import pytest

import emulated_cuda

# Before anything imports onnxviz.
emulated_cuda.take_place()

from shared_fixtures import captum, cuda_device, faiss, limited_disk, small_disk, torch, zoo  # noqa: E402

__all__ = ["captum", "cuda_device", "faiss", "limited_disk", "small_disk", "torch", "zoo"]

# A shell that starts the tests in the background has them, and whatever they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that start another Python must get the installed package there too, not the sources in the working folder.
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--update-golden", action="store_true", help="write the golden pictures anew instead of comparing")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if {"torch", "captum", "faiss"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.oracles)
    if not config.getoption("--slow"):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        # Deselected, not skipped: in CI every skip must have an allowed reason, and this one is nobody's fault.
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where ``ONNXVIZ_ALLOWED_SKIPS`` is set, a test skipped for any other reason makes the run fail."""
    allowed = os.environ.get("ONNXVIZ_ALLOWED_SKIPS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if allowed is None or reporter is None:
        return
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not re.search(allowed, reason):
            reporter.write_line(f"not an allowed reason to skip: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
