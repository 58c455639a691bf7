from __future__ import annotations

import os

import pytest

from stoker.errors import ConfigError
from stoker.listening import host_named, is_loopback, listening_socket, url_of


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


def test_loopback_is_this_machine_alone() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1", "a.localhost"]))
    assert not any(map(is_loopback, ["", "0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.com"]))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "games.example"])
def test_the_host_of_an_address_is_the_one_that_listens(host: str) -> None:
    url = url_of(host, 8000)
    assert host_named(url.removeprefix("http://")) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_the_address_of_all_addresses_can_be_opened(host: str) -> None:
    assert url_of(host, 8000, scheme="https") == "https://localhost:8000"
    assert url_of(host, 8000, every="node-3") == "http://node-3:8000"
