"""The undo stack of ADD: what was done is undone in reverse when the block fails, and every step is tried."""

import sys

from cni_protocol.light.standard import Any, Callable, Self


class Undo:
    """A context manager. Steps registered inside are run, last first, only when the block is left by an exception."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def on_failure(self, step: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Register the step that takes back what is about to be done, or was just done."""
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
