"""`pycni manual` and `pycni completion`: the manual page and what bash completes, from the options themselves.

Source: man(7) of groff; bash(1), "Programmable Completion". install.sh puts both beside the program.
Must not: say anything that a parser does not.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping

_FILES = {"FILE": "-f", "DIR": "-d"}  # what compgen(1) completes for a metavar
_STATUS = {
    "status": "0 ready, 1 not ready or with problems, 2 no agent answers",
    "inspect": "0, or 1 where something could not be read",
    "repair": "0 when nothing is missing any more, else 1",
    "doctor": "0 without a finding, else 1",
    "why": "0 passes, 1 stopped, 2 cannot tell",
}


def add_manual_options(parser: argparse.ArgumentParser) -> None:
    """None."""


def add_completion_options(parser: argparse.ArgumentParser) -> None:
    """The options of `pycni completion`."""
    parser.add_argument("shell", choices=("bash",), help="for which shell")


def print_manual(parsers: Mapping[str, argparse.ArgumentParser]) -> int:
    """The page, for man(1). Returns 0."""
    sys.stdout.write("\n".join(manual_of(parsers)) + "\n")
    return 0


def print_completion(parsers: Mapping[str, argparse.ArgumentParser]) -> int:
    """What bash is to source. Returns 0."""
    sys.stdout.write("\n".join(completion_of(parsers)) + "\n")
    return 0


def manual_of(parsers: Mapping[str, argparse.ArgumentParser]) -> Iterator[str]:
    """The lines of the page."""
    yield '.TH PYCNI 1 "" "pycni" "User Commands"'
    yield from (".SH NAME", r"pycni \- the pod network of a node: agent, inspection, diagnosis, repair")
    yield from (".SH SYNOPSIS", r".B pycni", ".I COMMAND", "[options]")
    yield ".SH COMMANDS"
    for name, parser in parsers.items():
        yield f".SS pycni {_roff(name)}{''.join(f' {_roff(_name_of(each))}' for each in _positionals(parser))}"
        yield _roff(_sentence(parser.description or ""))
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                yield from _option_lines(action)
        if name in _STATUS:
            yield from (".PP", rf"Exit status: {_roff(_STATUS[name])}.")
    yield from (".SH FILES", ".TP", ".I /run/pycni/agent.sock", "where the agent of this node answers, to root")
    yield from (".TP", ".I /var/lib/cni/results", "what the runtime remembers of its attachments")


def _option_lines(action: argparse.Action) -> Iterator[str]:
    value = f" \\fI{_roff(_name_of(action))}\\fR" if action.option_strings and action.nargs != 0 else ""
    names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in action.option_strings)
    yield ".TP"
    yield f"{names}{value}" if names else f"\\fI{_roff(_name_of(action))}\\fR"
    yield _roff(_sentence(_help_of(action)))


def _name_of(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return f"[{name}]" if action.nargs == "?" else name


def _help_of(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": "pycni"}


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")


def _roff(text: str) -> str:
    """Text that means nothing to roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def completion_of(parsers: Mapping[str, argparse.ArgumentParser]) -> Iterator[str]:
    """The lines of a script for bash: commands, their options, and files, directories or choices behind these."""
    yield "# What bash completes behind `pycni`. Made by `pycni completion bash`."
    yield "_pycni() {"
    yield "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}"
    yield "    COMPREPLY=()"
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        mapfile -t COMPREPLY < <(compgen -W {shlex.quote(" ".join(parsers))} -- "$word")'
    yield "        return"
    yield "    fi"
    yield '    case "$command $before" in'
    for name, parser in parsers.items():
        yield from _value_cases(name, parser)
    yield "    esac"
    yield '    case "$command" in'
    for name, parser in parsers.items():
        words = [option for action in parser._actions for option in action.option_strings]
        words += [str(each) for action in _positionals(parser) for each in action.choices or ()]
        yield f'    {name}) mapfile -t COMPREPLY < <(compgen -W {shlex.quote(" ".join(words))} -- "$word") ;;'
    yield "    esac"
    yield "}"
    yield "complete -F _pycni pycni"


def _value_cases(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """What follows an option with a value."""
    for action in parser._actions:
        if not action.option_strings or action.nargs == 0:
            continue
        if action.choices is not None:
            how = f"-W {shlex.quote(' '.join(map(str, action.choices)))}"
        else:
            how = _FILES.get(_name_of(action), "")
        names = "|".join(f'"{name} {option}"' for option in action.option_strings)
        if how:
            yield f'    {names}) mapfile -t COMPREPLY < <(compgen {how} -- "$word") && return ;;'
        elif action.nargs is None:
            yield f"    {names}) return ;;"
