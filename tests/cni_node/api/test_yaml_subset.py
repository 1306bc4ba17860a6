"""The YAML of kubeconfigs: what is read, and that nothing else is guessed."""

from typing import Any

import pytest

from cni_node.api.yaml_subset import parse_yaml
from cni_protocol.errors import CNIError

KUBECTL = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTg==
    server: https://10.0.0.1:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: admin
  name: admin@kubernetes
current-context: admin@kubernetes
kind: Config
preferences: {}
users:
- name: admin
  user:
    client-certificate-data: QUJD
"""


def test_what_kubectl_writes() -> None:
    assert parse_yaml(KUBECTL) == {
        "apiVersion": "v1",
        "clusters": [
            {
                "cluster": {"certificate-authority-data": "LS0tLS1CRUdJTg==", "server": "https://10.0.0.1:6443"},
                "name": "kubernetes",
            }
        ],
        "contexts": [{"context": {"cluster": "kubernetes", "user": "admin"}, "name": "admin@kubernetes"}],
        "current-context": "admin@kubernetes",
        "kind": "Config",
        "preferences": {},
        "users": [{"name": "admin", "user": {"client-certificate-data": "QUJD"}}],
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("---\n# first\na: b # c\n\n", {"a": "b"}),
        ('a: \'it\'\'s # no comment\'\nb: "\\u00e4 \\"q\\"" # "c"', {"a": "it's # no comment", "b": 'ä "q"'}),
        ("\"a b\": x\n'c': y", {"a b": "x", "c": "y"}),
        (
            "a: true\nb: False\nc: ~\nd:\ne: 007\nf: []",
            {"a": True, "b": False, "c": None, "d": None, "e": "007", "f": []},
        ),
        ("a:\n  - b\n  - c: d\n    e: f\n  -\n    g: h", {"a": ["b", {"c": "d", "e": "f"}, {"g": "h"}]}),
        ("- a:\n- b: c", [{"a": None}, {"b": "c"}]),
        ("- - a\n  - b\n- c", [["a", "b"], "c"]),
        ("a: http://[::1]:80/x#y", {"a": "http://[::1]:80/x#y"}),
        ("a: # nothing\nb: c", {"a": None, "b": "c"}),
        ("a:\n  b:\n    c: d\n  e: f\n", {"a": {"b": {"c": "d"}, "e": "f"}}),
        ("plain", "plain"),
    ],
    ids=[
        *("json", "comments", "quotes", "quoted-keys", "words", "indented-list", "empty-value", "nested-list", "url"),
        *("comment-for-value", "mappings", "scalar"),
    ],
)
def test_it_is_read(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the document is empty"),
        ("# nothing\n", "the document is empty"),
        ("{", "this is no JSON"),
        ("a: b\n\tc: d", "line 2 cannot be read: it is indented by a tab"),
        ("a: b\n  c: d", "line 2 cannot be read: it is indented otherwise"),
        ("a: |\n  text", "line 1 cannot be read: a text of several lines is more"),
        ("a: &x b", "line 1 cannot be read: an anchor or alias"),
        ("a: !!str b", "line 1 cannot be read: a tag"),
        ("a: [b, c]", "line 1 cannot be read: a list or mapping in brackets"),
        ("a: {b: c}", "line 1 cannot be read: a list or mapping in brackets"),
        ("a: b: c", "line 1 cannot be read: a second key"),
        ("a: b\na: c", "line 2 cannot be read: the key 'a' is there twice"),
        ("a: b\nc", 'line 2 cannot be read: a key and ":" were expected'),
        ("a: 'b", "line 1 cannot be read: the quoted text"),
        ("a: 'it's'", "line 1 cannot be read: the quoted text"),
        ('a: "\\x41"', "line 1 cannot be read: the quoted text"),
        ("a: several\n  lines", "line 2 cannot be read: it is indented otherwise"),
        ("- " * 50_000 + "a", "nested too deeply"),
    ],
)
def test_it_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_yaml(text)
    assert sentence in caught.value.msg
