"""VERSION: what a plugin speaks."""

from tests.conformance.registry import ALL, EACH, case, expect, expect_equal
from tests.conformance.world import World, succeed, told

_ONLY_COMMAND: dict[str, str | None] = dict.fromkeys(
    ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
)


@case(46, "VERSION answers with the input's cniVersion, and with all supported versions.", needs=EACH, versions=ALL)
def echo(w: World) -> None:
    for role in w.pair.roles():
        outcome = succeed(w.call("VERSION", {"cniVersion": w.version}, role=role), f"{role}: VERSION")
        supported = outcome.document.get("supportedVersions")
        expect(isinstance(supported, list) and w.version in supported, f"{role}: {w.version} supported", supported)
        expect_equal(outcome.document.get("cniVersion"), w.version, f"{role}: cniVersion of the answer")


@case(47, "VERSION demands only CNI_COMMAND, and tolerates an empty stdin and dummies in variables.", needs=EACH)
def bare_version(w: World) -> None:
    dummies = {"CNI_CONTAINERID": "", "CNI_IFNAME": "dummy", "CNI_NETNS": "dummy", "CNI_PATH": "dummy"}
    for role in w.pair.roles():
        for what, stdin, env in (
            ("without other variables", b'{"cniVersion": "0.4.0"}', _ONLY_COMMAND),
            ("with an empty stdin", b"", _ONLY_COMMAND),
            ("with dummies", b'{"cniVersion": "0.4.0"}', dummies),
        ):
            outcome = succeed(w.call("VERSION", stdin, role=role, env=env), f"{role}: VERSION {what}")
            versions = (outcome.document or {}).get("supportedVersions")
            expect(isinstance(versions, list) and bool(versions), f"{role}: VERSION {what}: versions", told(outcome))
