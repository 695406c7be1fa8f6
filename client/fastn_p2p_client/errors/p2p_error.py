"""Base classes of the errors, and the way from a code to its exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, dataclass_transform

_PACKAGE: Final = __name__.rpartition(".")[0]

CODES: Final[dict[str, type[P2PError]]] = {}
"""Class of each stable code. Both protocols send errors as code and fields."""


@dataclass_transform(eq_default=False, kw_only_default=True)
class P2PError(Exception):
    """An error of the system.

    Its fields are keyword arguments of the constructor and attributes; both protocols send them.

    Attributes:
        code: stable name of the error; it never changes between releases.
        retryable: True if the same request can succeed later without any change.
        transient: True if the error passes by itself, for instance once a process has restarted; see ``is_transient``.
        see: template of a last sentence, which names the command that tells more.
        detail: more about it, in words for people; empty if there is no more. Part of the text, and no field.
        request_id: id of the call or session that ended with it, also in the logs of both daemons; empty for others.
    """

    code: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    transient: ClassVar[bool] = False
    template: ClassVar[str] = "{code}"
    see: ClassVar[str] = ""
    _names: ClassVar[tuple[str, ...]] = ()
    detail = ""
    request_id = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._names = (*cls._names, *cls.__annotations__)
        if cls.__module__.rpartition(".")[0] != _PACKAGE:
            return  # the codes of programs are their own
        cls.__module__ = _PACKAGE  # the public path, which tracebacks show
        if cls.__dict__.get("code"):
            CODES[cls.code] = cls

    if not TYPE_CHECKING:  # for type checkers a dataclass; real dataclasses would triple the load time of this module

        def __init__(self, **fields: Any) -> None:
            if fields.keys() != set(self._names):
                raise TypeError(f"{type(self).__name__} takes exactly {', '.join(self._names) or 'nothing'}")
            super().__init__()
            self.__dict__.update(fields)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the fields."""
        return cls._names

    def fields(self) -> dict[str, Any]:
        """Return the fields by name, as both protocols send them."""
        return {name: getattr(self, name) for name in self._names}

    def __str__(self) -> str:
        """Return one line that is safe to print, also if a peer chose parts of it. ``fields`` has the exact values."""
        return self._plain(self.template + self.see)

    def statement(self) -> str:
        """Return the same line without the command that tells more, for this command."""
        return str(self).removesuffix(self._plain(self.see))

    def _plain(self, template: str) -> str:
        from ..plain_text import plain  # imported late: most programs load errors and never print one

        return plain(template.format(code=self.code, **self.fields()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"request_id": self.request_id} if self.request_id else None
        return (error_from, (self.code, self.fields(), self.detail), state)


class UsageError(P2PError):
    """The program passed or used something invalid."""


class LocalError(P2PError):
    """This machine's daemon cannot do it."""


class RemoteError(P2PError):
    """The peer, its daemon, or the path to it."""


class CredentialError(P2PError):
    """A delegation or peer record that is not valid."""


class InternalError(P2PError):
    """A defect of fastn-p2p."""

    code = "internal-error"
    template = "internal error: {reason}. Please report it"
    reason: str


def error_from(code: str, fields: dict[str, Any], detail: str = "") -> P2PError:
    """Return the exception of a code. An unknown code, or fields of another type, give an ``InternalError``.

    Args:
        code: stable name of the error; ``CODES`` has all of them.
        fields: fields of the exception by name.
        see: template of a last sentence, which names the command that tells more.
        detail: more about it, in words for people.
    """
    cls = CODES.get(code)
    if cls is None:
        return InternalError(reason=f"unknown error code {code[:64]!r}")
    try:
        error = cls(**fields)
        error.detail = detail
        str(error)  # a field of the wrong type must raise here, not where the error is printed
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return InternalError(reason=f"malformed error {code!r}")
    return error
