from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from servers import first, served
from websockets.sync.client import connect

from stoker.protocol import ProtocolError
from stoker.service.auth import Gate
from stoker.service.serving import Tls


def request(host: str, origin: str | None = None) -> dict[str, Any]:
    headers = [(b"host", host.encode())]
    return {"headers": headers if origin is None else [*headers, (b"origin", origin.encode())]}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", None),
        ("localhost:8000", "http://127.0.0.1:3000"),
        ("127.0.0.1:1", "http://127.0.0.1:1"),
        ("[::1]:8000", None),
        ("game.localhost", None),
        ("LOCALHOST.", None),
        ("rl.example:8000", "https://rl.example"),
        ("rl.example", "https://game.example"),
    ],
)
def test_own_names_and_friendly_pages_are_let_in(host: str, origin: str | None) -> None:
    gate = Gate(hosts=["rl.example"], origins=["https://game.example/"])
    assert gate.check_address(request(host, origin)) == origin


@pytest.mark.parametrize(
    ("host", "origin", "kind"),
    [
        ("evil.example", None, "wrong-host"),
        ("", None, "wrong-host"),
        ("localhost.evil.example", None, "wrong-host"),
        ("127.0.0.1.evil.example", None, "wrong-host"),
        ("192.168.0.1", None, "wrong-host"),
        ("localhost", "https://evil.example", "wrong-origin"),
        ("localhost", "https://localhost.evil.example", "wrong-origin"),
        ("localhost", "null", "wrong-origin"),
        ("localhost", "", "wrong-origin"),
        ("localhost", "http://[", "wrong-origin"),
        ("rl.example", "http://localhost", "wrong-origin"),
    ],
)
def test_foreign_names_and_pages_are_refused(host: str, origin: str | None, kind: str) -> None:
    gate = Gate(hosts=["rl.example"], origins=["https://game.example"])
    with pytest.raises(ProtocolError) as refused:
        gate.check_address(request(host, origin))
    assert refused.value.kind == kind


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_serves_https_and_wss(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-days", "2"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    trust = ssl.create_default_context(cafile=str(cert))
    with served(tls=Tls(cert, key)) as service:
        with httpx2.Client(base_url=service.url, verify=trust) as client:
            while client.get("/readyz").status_code == 503:
                pass
            assert client.post("/v1/step", json={"steps": [first()]}).json()["actors"]["a"]["next"] == 2
        with connect(service.url.replace("https", "wss") + "/v1/stream", ssl=trust) as stream:
            stream.send('{"hello": {}}')
            assert "welcome" in str(stream.recv(timeout=30))
