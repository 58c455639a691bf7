"""Modules of the page in node, without a browser: what is pure in them can be asked from Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from stoker.dashboard.inlining import script_json
from stoker.dashboard.pages import PAGE

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def in_node(module: str, script: str, given: Any) -> Any:
    """What a script makes of ``given`` with everything that a module of the page exports."""
    source = f"""
import * as page from {json.dumps((PAGE / module).as_uri())}
import {{ readFileSync }} from "node:fs"
const given = JSON.parse(readFileSync(0, "utf8"))
process.stdout.write(JSON.stringify(({script})(page, given)))
"""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", source],
        input=script_json(given), text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
