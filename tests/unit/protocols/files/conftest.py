"""Fixtures of the tests of FileTransfer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.file_directories import OfferInbox, SharedDirectory


@pytest.fixture
def shared(tmp_path: Path) -> SharedDirectory:
    """A shared directory, and one to get files into."""
    return SharedDirectory(tmp_path)


@pytest.fixture
def trusting(tmp_path: Path) -> OfferInbox:
    """An inbox that trusts bob."""
    return OfferInbox(tmp_path, trust=["bob"])


@pytest.fixture
def wary(tmp_path: Path) -> OfferInbox:
    """An inbox that trusts no peer."""
    return OfferInbox(tmp_path)
