"""The environment and stdin of a call: what is demanded, what is refused, in which words."""

import json
from typing import Any

import pytest

from cni_protocol.errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    CNIError,
)
from cni_protocol.request import (
    check_args,
    find_version,
    is_interface_name,
    parse_config,
    parse_request,
    supported_versions_reply,
)
from cni_protocol.version import SUPPORTED
from tests.kit.calls import bare_environment, call_environment, make_request

CONFIG = b'{"cniVersion": "1.1.0", "name": "mynet", "type": "x"}'


def refusal(env: dict[str, str], stdin: bytes = CONFIG) -> CNIError:
    with pytest.raises(CNIError) as caught:
        parse_request(env, stdin)
    return caught.value


def test_a_request_holds_what_the_runtime_said() -> None:
    env = call_environment("ADD", args="IP=10.1.2.3;MAC=;K=a=b", path=["/a", "", "/b", ""], HOME="/root")
    request = parse_request(env, CONFIG)
    assert (request.command, request.version, request.name) == ("ADD", "1.1.0", "mynet")
    assert (request.container_id, request.netns, request.ifname) == ("c1", "/run/netns/c1", "eth0")
    assert request.args == {"IP": "10.1.2.3", "MAC": "", "K": "a=b"}
    assert request.path == ("/a", "/b")
    assert request.config == {"cniVersion": "1.1.0", "name": "mynet", "type": "x"}
    assert (request.stdin, request.env) == (CONFIG, env)


REQUIRED = {
    "ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
    "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
    "DEL": {"CNI_CONTAINERID", "CNI_IFNAME"},
    "STATUS": set[str](),
    "GC": set[str](),
}


@pytest.mark.parametrize("command", REQUIRED)
@pytest.mark.parametrize("variable", sorted(REQUIRED["ADD"]))
@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_each_command_demands_its_variables_and_no_other(command: str, variable: str, empty: bool) -> None:
    env = {**call_environment(command), variable: ""}
    if not empty:
        del env[variable]
    if variable in REQUIRED[command]:
        error = refusal(env)
        assert (error.code, error.msg) == (INVALID_ENVIRONMENT, f"{variable} must be set for {command}")
    else:
        assert parse_request(env, CONFIG).command == command


def test_all_problems_of_the_environment_are_named_at_once() -> None:
    assert refusal(bare_environment("ADD")).msg == "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME must be set for ADD"
    error = refusal(call_environment("ADD", "../x", "", "a/b"))
    assert error.code == INVALID_ENVIRONMENT
    for part in ("CNI_NETNS must be set for ADD", "CNI_CONTAINERID='../x'", "CNI_IFNAME='a/b'"):
        assert part in error.msg


@pytest.mark.parametrize(
    ("command", "said"),
    [(None, "CNI_COMMAND is not set"), ("", "is not set"), ("add", "CNI_COMMAND=add")],
    ids=["absent", "empty", "unknown"],
)
def test_without_a_known_command_the_known_ones_are_listed(command: str | None, said: str) -> None:
    env = call_environment(command or "")
    if command is None:
        del env["CNI_COMMAND"]
    error = refusal(env)
    assert error.code == INVALID_ENVIRONMENT
    assert said in error.msg
    assert "ADD, DEL, CHECK, STATUS, GC, VERSION" in error.msg


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a", True),
        ("0", True),
        ("a.b-c_D9", True),
        ("x" * 300, True),
        (".a", False),
        ("-a", False),
        ("_a", False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("..", False),
        ("ä", False),
        ("a;b", False),
    ],
)
def test_container_ids_and_network_names_are_identifiers(name: str, valid: bool) -> None:
    named = json.dumps({"cniVersion": "1.0.0", "name": name}).encode()
    if valid:
        request = parse_request(call_environment("DEL", name), named)
        assert (request.container_id, request.name) == (name, name)
    else:
        error = refusal(call_environment("DEL", name))
        assert error.code == INVALID_ENVIRONMENT
        assert f"CNI_CONTAINERID={name!r}" in error.msg
        error = refusal(call_environment("DEL"), named)
        assert error.code == INVALID_CONFIG
        assert error.msg.startswith(f"name: {json.dumps(name)} is no network name")


@pytest.mark.parametrize("document", [{}, {"name": ""}, {"name": None}, {"name": 5}, {"name": ["a"]}])
def test_a_network_needs_a_name_that_is_a_string(document: dict[str, Any]) -> None:
    error = refusal(call_environment("ADD"), json.dumps({"cniVersion": "1.0.0", **document}).encode())
    assert error.code == INVALID_CONFIG
    assert error.msg.startswith(f"name: {json.dumps(document.get('name'))} is no network name")


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("eth0", True),
        ("a" * 15, True),
        ("a.b-c@d", True),
        ("ü" * 7, True),
        ("...", True),
        ("", True),  # absence is reported as such
        ("a" * 16, False),
        ("ü" * 8, False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("a:b", False),
        ("br%d", False),  # the kernel makes br0, br1, ... of it
        ("100%", False),
        ("a b", False),
        ("a\tb", False),
        ("a\n", False),
        ("a\x1b[2J", False),
        ("a\udcff", False),
    ],
)
def test_interface_names_are_what_the_kernel_takes(name: str, valid: bool) -> None:
    assert is_interface_name(name) == valid
    if not valid:
        error = refusal(call_environment("ADD", ifname=name))
        assert error.code == INVALID_ENVIRONMENT
        assert error.msg.startswith(f"CNI_IFNAME={name!r} is no interface name")


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_version_is_taken(version: str) -> None:
    assert make_request({"cniVersion": version}).version == version


@pytest.mark.parametrize("document", [{}, {"cniVersion": ""}, {"cniVersion": None}], ids=["absent", "empty", "null"])
def test_a_configuration_without_version_has_the_oldest(document: dict[str, Any]) -> None:
    config = {"name": "mynet", **document}
    assert parse_request(call_environment("ADD"), json.dumps(config).encode()).version == "0.1.0"
    assert find_version(config) == "0.1.0"


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("0.9.0", INCOMPATIBLE_VERSION),
        ("1.2.0", INCOMPATIBLE_VERSION),
        (1, INVALID_CONFIG),
        (["1.0.0"], INVALID_CONFIG),
    ],
)
def test_a_version_that_is_none_is_refused(version: object, code: int) -> None:
    error = refusal(call_environment("ADD"), json.dumps({"cniVersion": version, "name": "mynet"}).encode())
    assert error.code == code
    assert str(version).strip("[]") in error.msg.replace('"', "'")


@pytest.mark.parametrize(("command", "version"), [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")])
def test_a_command_is_refused_before_its_version(command: str, version: str) -> None:
    error = refusal(call_environment(command), json.dumps({"cniVersion": version, "name": "mynet"}).encode())
    assert error.code == INCOMPATIBLE_VERSION
    assert command in error.msg
    assert version in error.msg


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b" \n",
        b"{",
        b"{}x",
        b"{'name': 'mynet'}",
        b"\xff\xfe\xfd",
        b'{"name": "\xff"}',
        b"\0" * 10,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        "empty",
        "blank",
        "cut-off",
        "trailing",
        "python",
        "utf-8",
        "utf-8-string",
        "nul",
        "deep-list",
        "deep-object",
        "deep-closed",
        "huge-int",
    ],
)
def test_what_is_no_json_is_a_decoding_failure(stdin: bytes) -> None:
    error = refusal(call_environment("ADD"), stdin)
    assert error.code == DECODING_FAILURE
    assert error.msg.startswith("the configuration on stdin is no JSON document")


@pytest.mark.parametrize("stdin", [b"[]", b"null", b"1", b'"x"', b"[" + b"1," * 50_000 + b"1]"])
def test_what_is_no_object_is_a_decoding_failure(stdin: bytes) -> None:
    with pytest.raises(CNIError, match="must be a JSON object, not ") as caught:
        parse_config(stdin)
    assert caught.value.code == DECODING_FAILURE
    assert len(caught.value.msg) < 200


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        (";", {}),
        ("A=1", {"A": "1"}),
        ("A=1;", {"A": "1"}),
        (";A=1;;B=2", {"A": "1", "B": "2"}),
        ("A=", {"A": ""}),
        ("A=b=c", {"A": "b=c"}),
    ],
)
def test_cni_args_are_pairs(text: str, args: dict[str, str]) -> None:
    assert make_request({}, args=text).args == args


@pytest.mark.parametrize(
    "text",
    [
        "",
        "IP=10.1.2.3",
        "IgnoreUnknown=1;K8S_POD_NAME=a;K8S_POD_NAMESPACE=b",
        "K8S_POD_NAME=a;IgnoreUnknown=true",
        "K8S_POD_NAME=a;IgnoreUnknown=TRUE",
        "IgnoreUnknown=0;IP=10.1.2.3",
        "IgnoreUnknown=false",
        "IgnoreUnknown=",
    ],
)
def test_known_args_pass_and_unknown_ones_with_ignore_unknown(text: str) -> None:
    check_args(make_request({}, args=text), ("IP",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("K8S_POD_NAME=a", ["K8S_POD_NAME is unknown here (IgnoreUnknown=1 lets it pass)"]),
        ("IgnoreUnknown=0;X=a", ["X is unknown"]),
        ("ip=10.1.2.3", ["ip is unknown"]),
        ("IP", ["'IP' is not of the form KEY=VALUE"]),
        ("=x", ["'=' is not of the form KEY=VALUE"]),
        ("IgnoreUnknown=1;IP", ["'IP' is not of the form KEY=VALUE"]),
        ("IgnoreUnknown=maybe", ["IgnoreUnknown=maybe is none of 1, 0, true, false"]),
        ("X=a;Y=b;Z", ["X is unknown", "Y is unknown", "'Z' is not of the form"]),
    ],
)
def test_other_args_are_refused_all_at_once(text: str, said: list[str]) -> None:
    with pytest.raises(CNIError) as caught:
        check_args(make_request({}, args=text), ("IP",))
    assert caught.value.code == INVALID_ENVIRONMENT
    assert caught.value.msg.startswith("CNI_ARGS: ")
    for part in said:
        assert part in caught.value.msg


@pytest.mark.parametrize(
    ("config", "version"),
    [
        ({}, "1.1.0"),
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "9.9.9"}, "9.9.9"),
        ({"cniVersion": 1}, "1.1.0"),
    ],
)
def test_version_answers_with_the_version_asked_and_all_that_is_spoken(config: dict[str, Any], version: str) -> None:
    assert supported_versions_reply(config) == {"cniVersion": version, "supportedVersions": list(SUPPORTED)}
