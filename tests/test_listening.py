from __future__ import annotations

import os

import pytest

from stoker.errors import ConfigError
from stoker.listening import listening_socket


def test_a_free_port_is_listened_on() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.getsockname()[1] > 0


def test_a_taken_port_is_refused_with_its_holder_and_the_way_out() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--metrics-port {port}: .*{os.getpid()}.* another port"):
            listening_socket("127.0.0.1", port, "--metrics-port")


@pytest.mark.parametrize(
    ("host", "port", "named"),
    [
        ("no.such.host.invalid", 0, "--host 'no.such.host.invalid'"),
        ("192.0.2.1", 0, "--host 192.0.2.1: this machine has no such address"),
        ("127.0.0.1", 70_000, "--port 70000"),
        ("\udc80", 0, "--host"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(host: str, port: int, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        listening_socket(host, port)
    assert named in str(refused.value)
