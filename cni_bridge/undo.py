"""The undo stack of ADD: when the block fails, its steps are undone in reverse order, also after a failed one."""

import sys

from cni_protocol.light.standard import Any, Callable, Self


class Undo:
    """A context manager. If the block raises, the steps registered in it are run, the last one first."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def on_failure(self, step: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Register the step that undoes what is about to be done, or was just done."""
        self._steps.append((step, arguments, options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for step, arguments, options in reversed(self._steps):
            try:
                step(*arguments, **options)
            except Exception as failure:
                print(f"cni-bridge: undoing after an error: {failure}", file=sys.stderr)
