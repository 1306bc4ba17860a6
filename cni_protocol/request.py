"""The environment and stdin of a plugin call, checked, as an immutable Request.

Source: SPEC.md, sections "Parameters", "Error" and "CNI operations"; CONVENTIONS.md for CNI_ARGS.
Must not: know any key that belongs to one plugin alone.
"""

from .errors import DECODING_FAILURE, INVALID_CONFIG, INVALID_ENVIRONMENT, CNIError
from .fields import shown
from .light.json_text import parse_json
from .light.standard import Any, Callable, Mapping, NamedTuple
from .version import NEWEST, OLDEST, SUPPORTED, require_command, require_supported

# The variables that each command requires. CNI_ARGS and CNI_PATH are always optional.
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "STATUS": (),
    "GC": (),
    "VERSION": (),
}

IFNAME_BYTES = 15  # IFNAMSIZ of the kernel, less the final NUL
_IDENTIFIER_REST = str.maketrans("", "", "_.-")  # allowed in an identifier, besides letters and digits


class Request(NamedTuple):
    """The parts of a call that the specification defines.

    `config` is the decoded network configuration. `stdin` is the same as bytes, `env` the whole environment; an IPAM
    plugin gets both unchanged. `path` holds the directories of CNI_PATH in order. A command calls
    `finish_uninterrupted` as its last step: from then on no signal interrupts it.
    """

    command: str
    version: str
    name: str
    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str]
    path: tuple[str, ...]
    config: Mapping[str, Any]
    stdin: bytes
    env: Mapping[str, str]
    finish_uninterrupted: Callable[[], None] = lambda: None


def parse_config(stdin: bytes) -> dict[str, Any]:
    """The JSON object on stdin. Raises CNIError (code 6)."""
    try:
        config = parse_json(stdin)
    except (ValueError, RecursionError) as error:
        raise CNIError(DECODING_FAILURE, f"the configuration on stdin is no JSON document: {error}") from None
    if not isinstance(config, dict):
        raise CNIError(DECODING_FAILURE, f"the configuration on stdin must be a JSON object, not {shown(config)}")
    return config


def find_version(config: Mapping[str, Any]) -> str:
    """The cniVersion to answer with: the configuration's; the oldest for none, the newest for one that is no string."""
    version = config.get("cniVersion") or OLDEST
    return version if isinstance(version, str) else NEWEST


def parse_request(env: Mapping[str, str], stdin: bytes) -> Request:
    """Check a call other than VERSION, and return it as a Request.

    Raises CNIError: 4 names every missing or invalid variable, 6 is no JSON object on stdin, 7 an invalid name, type or
    cniVersion in it, 1 an unsupported version or command.
    """
    command = env.get("CNI_COMMAND", "")
    problems = _environment_problems(command, env)
    if problems:
        raise CNIError(INVALID_ENVIRONMENT, "; ".join(problems))
    config = parse_config(stdin)
    version = config.get("cniVersion") or OLDEST
    if not isinstance(version, str):
        raise CNIError(INVALID_CONFIG, f"cniVersion must be a string such as {NEWEST!r}, not {shown(version)}")
    require_supported(version)
    require_command(command, version)
    name = config.get("name")
    if not isinstance(name, str) or not is_identifier(name):
        raise CNIError(
            INVALID_CONFIG,
            f"name: {shown(name)} is no network name; it starts with a letter or a digit, and letters, digits, "
            "'_', '.' and '-' follow",
        )
    kind = config.get("type")
    if isinstance(kind, str) and "/" in kind:
        raise CNIError(INVALID_CONFIG, f"type: {shown(kind)} must be the plain file name of an executable in CNI_PATH")
    return Request(
        command=command,
        version=version,
        name=name,
        container_id=env.get("CNI_CONTAINERID", ""),
        netns=env.get("CNI_NETNS", ""),
        ifname=env.get("CNI_IFNAME", ""),
        args=_split_args(env.get("CNI_ARGS", "")),
        path=tuple(directory for directory in env.get("CNI_PATH", "").split(":") if directory),
        config=config,
        stdin=stdin,
        env=env,
    )


def check_args(request: Request, known: tuple[str, ...]) -> None:
    """Raise CNIError (code 4) for a malformed entry of CNI_ARGS, and for an unknown one without IgnoreUnknown=1."""
    ignore = request.args.get("IgnoreUnknown", "").lower()
    problems = []
    if ignore not in ("", "0", "1", "true", "false"):
        problems.append(f"IgnoreUnknown={ignore} is none of 1, 0, true, false")
    for key, value in request.args.items():
        if not key or value == _NO_VALUE:
            problems.append(f"{key or '='!r} is not of the form KEY=VALUE")
        elif key not in (*known, "IgnoreUnknown") and ignore not in ("1", "true"):
            problems.append(f"{key} is unknown here (IgnoreUnknown=1 lets it pass)")
    if problems:
        raise CNIError(INVALID_ENVIRONMENT, "CNI_ARGS: " + "; ".join(problems))


_NO_VALUE = "\0"  # cannot occur in an environment variable


def _split_args(text: str) -> dict[str, str]:
    """CNI_ARGS (`K=V;K=V`, possibly empty) as a mapping; an entry without `=` has the value _NO_VALUE."""
    args = {}
    for entry in text.split(";"):
        key, equals, value = entry.partition("=")
        if entry:
            args[key] = value if equals else _NO_VALUE
    return args


def _environment_problems(command: str, env: Mapping[str, str]) -> list[str]:
    if not command:
        return ["CNI_COMMAND is not set; it names the operation: " + ", ".join(REQUIRED)]
    if command not in REQUIRED:
        return [f"CNI_COMMAND={command} is none of {', '.join(REQUIRED)}"]
    missing = [name for name in REQUIRED[command] if not env.get(name)]
    problems = [f"{', '.join(missing)} must be set for {command}"] if missing else []
    if "CNI_CONTAINERID" in REQUIRED[command]:
        container_id, ifname = env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")
        if container_id and not is_identifier(container_id):
            problems.append(
                f"CNI_CONTAINERID={container_id!r} must start with a letter or a digit and go on with letters, "
                "digits, '_', '.' or '-'"
            )
        if ifname and not is_interface_name(ifname):
            problems.append(
                f"CNI_IFNAME={ifname!r} is no interface name: at most {IFNAME_BYTES} bytes, not '.' or '..', "
                "without '/', ':', '%' and white space"
            )
    return problems


def is_identifier(text: str) -> bool:
    """Whether this is a valid container id or network name (SPEC.md, "Parameters")."""
    rest = text[1:].translate(_IDENTIFIER_REST)
    return text.isascii() and text[:1].isalnum() and (not rest or rest.isalnum())


def is_interface_name(name: str) -> bool:
    """Whether the kernel makes an interface of just this name (dev_get_valid_name in net/core/dev.c); it is printable.

    A name with a percent sign is a pattern, out of which the kernel makes another name each time.
    """
    if len(name.encode("utf-8", "surrogateescape")) > IFNAME_BYTES or name in (".", ".."):
        return False
    return name.isprintable() and not {"/", ":", "%", " "}.intersection(name)  # no other white space is printable


def supported_versions_reply(config: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to VERSION (SPEC.md, "VERSION"): cniVersion as in the input, and all versions that we support."""
    version = config.get("cniVersion")
    return {
        "cniVersion": version if isinstance(version, str) and version else NEWEST,
        "supportedVersions": list(SUPPORTED),
    }
