from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.forkserver import ForkServer


@pytest.fixture(scope="session")
def sandbox() -> Iterator[ForkServer]:
    server = ForkServer("tests.hostile.sandbox")
    yield server
    server.close()
