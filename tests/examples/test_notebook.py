"""The notebook of the examples in a real kernel, and what interrupting a kernel does to a training."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

PATIENCE_S = 90
CONFIG = {"env": "CartPole-v1", "total_timesteps": 10**9, "learning_starts": 64, "hidden_sizes": [16]}


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run the code beside these tests, and keep their files in the test's directory."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", f"{root / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)


def test_the_notebook_runs_from_top_to_bottom(root: Path) -> None:
    notebook = nbformat.read(root / "examples/notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    for cell in notebook.cells:
        cell.source = cell.source.replace("20_000", "600")
    NotebookClient(notebook, kernel_name="python3", timeout=PATIENCE_S).execute()
    outputs: list[list[Any]] = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    of_train, of_plot, of_frame, of_actors = outputs[1], outputs[2], outputs[3], outputs[5]
    (table,) = [output["data"] for output in of_train if output["output_type"] == "display_data"]
    assert "100% of 600" in table["text/plain"], "one table, which was updated in place"
    assert "<pre" in table["text/html"]
    assert [output["text"][:10] for output in of_train if output["output_type"] == "stream"] == ["600 steps,"]
    assert "image/png" in of_plot[0]["data"]
    assert "total_reward" in of_frame[0]["data"]["text/html"]
    assert of_actors[0]["data"]["text/plain"].startswith("(600,")
    assert outputs[0] == outputs[4] == outputs[6] == []


def test_interrupting_the_kernel_leaves_a_saved_run_that_goes_on() -> None:
    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel()
    client: Any = kernel.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        said = run_cell(client, "from stoker import TrainingRun, train; run = await TrainingRun.create('x')")
        assert said == []
        said = run_cell(client, f"await train({CONFIG!r}, run)", kernel, interrupt_at="update_display_data")
        assert said == ["CancelledError"]
        said = run_cell(
            client,
            "steps = run.metadata.total_steps\n"
            "assert steps and run.checkpoint_steps()[-1] == steps and not run.is_acquired\n"
            f"config = {CONFIG!r} | {{'total_timesteps': steps + 300}}\n"
            "(await train(config, run, view='none')).total_steps - steps",
        )
        assert said == ["300"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def run_cell(
    client: BlockingKernelClient, code: str, kernel: KernelManager | None = None, *, interrupt_at: str = ""
) -> list[str]:
    """The results and the errors of a cell; interrupted at the first message of that kind."""
    sent, said = client.execute(code), list[str]()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        message = client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
        kind, content = message["msg_type"], message["content"]
        if kind == interrupt_at and kernel is not None:
            kernel.interrupt_kernel()
            kernel = None
        elif kind == "error":
            said.append(content["ename"])
        elif kind == "execute_result":
            said.append(content["data"]["text/plain"])
        elif content.get("execution_state") == "idle" and message["parent_header"].get("msg_id") == sent:
            return said
