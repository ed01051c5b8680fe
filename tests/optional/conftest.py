"""Tests of what not every machine can have: collected only where a variable asks for them."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("AIRIS_TEST_SAMBA") == "1" else ["*_samba.py"]
