"""What a protocol is: a class with handlers and lifecycle hooks.

::

    class Echo(Protocol):
        public = True

        class Config(msgspec.Struct, forbid_unknown_fields=True):
            max_length: int = 1000

        config: Config

        @request
        async def echo(self, request: EchoRequest, peer: Peer) -> EchoReply:
            return EchoReply(echoed=request.message[: self.config.max_length])

One instance of the class stands for one binding: a protocol that one identity offers under one alias. The same
class runs hosted by the daemon, in the identity's own process, and in a program.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar, cast, overload

import msgspec

from .call_context import CallContext
from .callables import NAMES, local_names, name_of
from .client import Client
from .home import Home
from .keys import PublicKey
from .names import check_name
from .peer import Peer
from .shared_client import shared_client

__all__ = [
    "BindingContext",
    "CallContext",
    "NoConfig",
    "Peer",
    "Protocol",
    "effective_access",
    "method_of",
    "request",
    "request_handlers",
    "stream",
    "stream_handlers",
]

_REQUEST: Final = "request"
_STREAM: Final = "stream"
_KIND: Final = "__fastn_p2p_handler__"
_COMMANDS: Final = "__fastn_p2p_commands__"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The config of a protocol that has nothing to configure."""


@dataclass(frozen=True, slots=True)
class BindingContext:
    """What one binding of a protocol knows about itself."""

    identity: str
    """The name of the identity that offers it, on this machine."""
    key: PublicKey
    """The same identity's public key."""
    protocol: str
    instance: str
    workspace: Path
    """A directory of the binding's own. It goes when the binding is removed."""
    config: Any
    """An instance of the protocol's ``Config``."""
    home: Home | None = None
    """The daemon's; None stands for ``$FASTN_HOME``."""

    @property
    def client(self) -> Client:
        """What the protocol calls others with, usually as ``identity``: all of a process share one. Inside the event
        loop only."""
        return shared_client(self.home, program=f"identity:{self.identity}")


class Protocol:
    """Base class of protocols. Class attributes say what it is, ``@request`` and ``@stream`` mark what it answers.

    Hooks do nothing unless overridden. What a hook raises keeps the binding from its next state, and ends up in the
    log and in ``status``; the identity's other bindings go on.

    Attributes:
        public: whether strangers may use it when nothing else was said; otherwise only peers in the address book.
        Config: the type of its config: any type that msgspec decodes from JSON, usually a nested ``Struct``.
        context: what the instance knows about itself.
        config: its config; a subclass that annotates it with its own ``Config`` gets it typed.
    """

    public: ClassVar[bool] = False
    Config: ClassVar[type[Any]] = NoConfig
    config: Any

    def __init__(self, context: BindingContext) -> None:
        self.context = context
        self.config = context.config

    async def on_check(self) -> None:
        """Is the config good for more than its types? Raise to refuse it; name the field: ``… - at `$.path```.

        Called before anything else, when a protocol is added, checked or reloaded and whenever its binding starts; also
        in a process in which nothing else of the binding runs. The workspace may not exist yet.
        """

    async def on_create(self) -> None:
        """Once in a binding's life, before the first ``on_activate``: the workspace exists and is empty."""

    async def on_activate(self) -> None:
        """Each time before the binding takes requests: open what it needs."""

    async def on_reload(self) -> None:
        """The config has changed while the binding serves; ``config`` and ``context`` are the new ones."""

    async def on_deactivate(self) -> None:
        """Each time after the binding has taken its last request: close what ``on_activate`` opened."""

    async def on_delete(self) -> None:
        """The binding is being removed; its workspace goes next.

        Only after ``on_create``, and in a process in which nothing else of the binding has run.
        """

    async def describe_data(self) -> str | None:
        """Return in a few words what is lost with the workspace, for instance ``"3 mails"``, for the question whether
        to delete it; None has the daemon count the files.

        Asked before the binding is removed, when there are files in its workspace; in a process in which nothing else
        of the binding runs, while it may be serving in another one. Read, and change nothing.
        """
        return None


@overload
def request(handler: Handler, /) -> Handler: ...
@overload
def request(command: str, /) -> Callable[[Handler], Handler]: ...
def request(handler: Any, /) -> Any:
    """Marks the method that answers a protocol's requests; a protocol has one, and one for each command.

    ``@request`` is for requests that name no command, ``@request("settings.add-forwarding")`` for those that name this
    one. The method's annotations are the contract: the first parameter is the request (for several kinds of request, a
    union of tagged Structs); one annotated ``Peer``, if there is one, is who asks; one annotated ``CallContext`` knows
    how long they wait. What it returns is the reply. Raise ``ApplicationError`` to say no on purpose. A method that is
    not ``async`` runs in a thread. Static and class methods, decorated ones and partials serve as well. A method that
    overrides a handler is its handler too, and may be marked anew; one marked several times answers several commands.
    """
    if not isinstance(handler, str):
        return _mark(handler, _REQUEST, "")
    command = check_name(handler, "a command")
    return lambda function: _mark(function, _REQUEST, command)


def _mark(handler: Any, kind: str, command: str) -> Any:
    """Write on a function, or on what stands around it, what it answers; several marks of one kind add up."""
    marked = getattr(handler, _KIND, kind)
    if marked != kind:
        raise TypeError(
            f"{name_of(handler)} is marked as the handler of a {marked} already; it cannot be one of a {kind}"
        )
    try:
        setattr(handler, _KIND, kind)
        setattr(handler, _COMMANDS, (*getattr(handler, _COMMANDS, ()), command))
        names = local_names(handler)
        if names:
            setattr(handler, NAMES, names)
    except AttributeError as error:
        raise TypeError(f"{handler!r} cannot be marked as a handler: write a method that calls it") from error
    return handler


def stream(handler: Handler) -> Handler:
    """Marks the method that serves a protocol's sessions; a protocol has one.

    Its first parameter is the ``Session`` (that of ``fastn_p2p_client.sync`` for a method that is not ``async``, which
    runs in a thread); a second one, if there is one, is the initial data, and its annotation the contract. The session
    is closed when the method returns, and reset when it raises. Until it reads or writes for the first time (or calls
    ``session.accept()``) it may raise ``ApplicationError`` to say no: ``connect`` raises it.
    """
    return cast(Handler, _mark(handler, _STREAM, ""))


def effective_access(protocol: Protocol | type[Protocol] | None, allow: tuple[str, ...]) -> tuple[str, ...]:
    """Who may use a binding: whom its owner has named, and where that is nobody, whom its protocol declares."""
    return allow or (("everyone",) if protocol is not None and protocol.public is True else ("peers",))


def request_handlers(protocol: type[Protocol]) -> dict[str, list[str]]:
    """Command → the names of the methods that are its handler; a subclass's come first. Those that are marked with
    plain ``@request`` have the command ``""``. A method that overrides a handler is one, marked or not."""
    found: dict[str, list[str]] = {}
    for name, mark in _marked(protocol, _REQUEST).items():
        for command in dict.fromkeys(getattr(mark, _COMMANDS)):
            found.setdefault(command, []).append(name)
    return found


def stream_handlers(protocol: type[Protocol]) -> list[str]:
    """The names of the methods that serve sessions; a subclass's come first. A method that overrides one is one."""
    return list(_marked(protocol, _STREAM))


def method_of(instance: Protocol, name: str) -> Callable[..., Any]:
    """The method, also where an attribute of the instance has the same name."""
    cls = type(instance)
    found = inspect.getattr_static(cls, name)
    return cast(Callable[..., Any], found.__get__(instance, cls) if hasattr(found, "__get__") else found)


def _marked(protocol: type[Protocol], kind: str) -> dict[str, Any]:
    """Name → what has the mark that counts: of all that have the name, the first one of the class and its bases."""
    marks: dict[str, Any] = {}
    for cls in protocol.__mro__:
        for name, value in vars(cls).items():
            for each in (value, getattr(value, "__func__", None)):  # of static and class methods
                if hasattr(each, _KIND):
                    marks.setdefault(name, each)
    return {
        name: mark
        for name, mark in marks.items()
        if getattr(mark, _KIND) == kind and _is_method(inspect.getattr_static(protocol, name))
    }


def _is_method(value: object) -> bool:
    """False for what a subclass has put in a handler's place to be without it: ``None``, for instance."""
    return callable(value) or isinstance(value, classmethod | functools.partialmethod)
