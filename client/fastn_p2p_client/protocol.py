"""Protocols as classes: ``Protocol`` with its hooks, and ``@request`` and ``@stream`` for its handlers.

::

    class Echo(Protocol):
        public = True

        class Config(msgspec.Struct, forbid_unknown_fields=True):
            max_length: int = 1000

        config: Config

        @request
        async def echo(self, request: EchoRequest, peer: Peer) -> EchoReply:
            return EchoReply(echoed=request.message[: self.config.max_length])

An instance of the class stands for a binding: an instance of the protocol that one identity serves. The same class
runs in the daemon, in the identity's own process, and in a program that calls ``serve_all``.
"""

from __future__ import annotations

import functools
import inspect
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar, cast, overload

import msgspec

from .call_context import CallContext
from .callables import NAMES, local_names, name_of
from .client import Client
from .home import Home
from .ipc.unix_sockets import connect_unix
from .keys import PublicKey
from .names import check_name
from .peer import Peer
from .permissions import Permissions
from .shared_client import shared_client

__all__ = [
    "BindingContext",
    "CallContext",
    "NoConfig",
    "Peer",
    "Permissions",
    "Protocol",
    "effective_access",
    "method_of",
    "request",
    "request_handlers",
    "stream",
    "stream_handlers",
]

IDLE: Final = "idle"
"""``Protocol.deactivation_reason``: the identity falls asleep until it is called."""
STOPPED: Final = "stopped"
"""``Protocol.deactivation_reason``: the binding, its identity or the program is stopped."""
ANY_COMMAND: Final = "*"
"""As a command of a handler: requests that have no handler of their own."""
_REQUEST: Final = "request"
_STREAM: Final = "stream"
_KIND: Final = "__fastn_p2p_handler__"
_COMMANDS: Final = "__fastn_p2p_commands__"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Config of a protocol without config: the empty JSON object."""


def _ignore_waiting(_count: int) -> None:
    """Without a daemon nobody is told."""


def _ignore_problem(_problem: str) -> None:
    """Without a daemon nobody is told."""


def _ignore_awake(_awake: bool) -> None:
    """A program decides itself how long it runs."""


@dataclass(frozen=True, slots=True)
class BindingContext:
    """Binding of a protocol, as its code sees it."""

    identity: str
    """Name of the identity that serves it, on this machine."""
    key: PublicKey
    """Public key of the identity."""
    protocol: str
    """Name of the protocol."""
    instance: str
    """Name of the instance."""
    workspace: Path
    """Directory of the binding's own. It is deleted with the binding."""
    config: Any
    """Instance of the protocol's ``Config``; for plain handlers the JSON value that the owner gave."""
    home: Home | None = None
    """Home of the daemon; None stands for ``$FASTN_HOME``."""
    report_waiting: Callable[[int], None] = _ignore_waiting
    """Function that tells the daemon how much waits for the owner here, such as unread mails. Commands on a terminal
    mention it. Call it inside the event loop when the number changes. Without a daemon it does nothing."""
    stay_awake: Callable[[bool], None] = _ignore_awake
    """Function that tells the daemon whether the protocol works without a request, such as on mail that waits to be
    delivered. While it does, an identity with an idle time does not fall asleep. Call it inside the event loop. In a
    program it does nothing."""
    report_problem: Callable[[str], None] = _ignore_problem
    """Function that tells the daemon what keeps the protocol from working, and what to do; an empty text when it works
    again. The status of the binding shows it. Call it inside the event loop. In a program it does nothing."""

    @property
    def client(self) -> Client:
        """Client for calls of the protocol's own, usually as ``identity``. All bindings of a process share it.

        Use it inside the event loop only.
        """
        return shared_client(self.home, program=f"identity:{self.identity}")

    async def connect_unix(self, path: Path | str) -> socket.socket:
        """Return a non-blocking stream socket that is connected to the Unix socket at ``path``.

        An identity's process may not make Unix sockets itself. The daemon makes this one, if the owner has granted
        ``connect unix:PATH``.

        Raises:
            OSError: the connection failed. ``PermissionError``: it was not granted.
        """
        return await connect_unix(Path(path))


class Protocol:
    """Base class of protocols. ``@request`` and ``@stream`` mark the handlers.

    A hook does nothing unless it is overridden, and may take 5 seconds. If it raises, the binding does not enter its
    next state. The log and ``fastn-p2p status`` say why. Other bindings of the identity go on.

    Attributes:
        public: whether every peer may use the protocol unless the owner says otherwise. If False, peers in the address
            book may.
        Config: type of the config: any type that msgspec decodes from JSON, usually a nested ``Struct``.
        context: the binding that the instance stands for.
        config: its config. Annotate it with ``Config`` in a subclass to get it typed.
        deactivation_reason: reason of the ``on_deactivate`` that runs: ``"idle"`` if the identity falls asleep until it
            is called, else ``"stopped"``.
        home_elsewhere: name of the daemon that is the home of a binding that keeps state, if it is another one. Then
            only the identity itself, by programs of this daemon, still calls the binding here.
    """

    public: ClassVar[bool] = False
    Config: ClassVar[type[Any]] = NoConfig
    config: Any
    deactivation_reason: str = ""
    home_elsewhere: str = ""

    def __init__(self, context: BindingContext) -> None:
        """
        Args:
            context: the binding that the instance stands for.
        """
        self.context = context
        self.config = context.config

    @classmethod
    def permissions(cls, config: Any) -> Permissions:
        """Return what the code needs outside of its workspace with this config. By default it needs nothing.

        The owner sees it when he adds the protocol, and has to agree. The daemon enforces it where the kernel can:
        nothing else can be read, written, connected to or run. Called before the instance exists; do nothing but
        compute.

        Args:
            config: an instance of ``Config``.
        """
        return Permissions()

    @classmethod
    def keeps_state(cls, config: Any) -> bool:
        """Return whether a binding with this config keeps what peers send, such as an inbox. By default it does not.

        If several daemons serve the identity, only one of them serves such a binding, its home: docs/replicas.md.
        Called before the instance exists; do nothing but compute.

        Args:
            config: an instance of ``Config``.
        """
        return False

    @classmethod
    def is_stateless(cls, config: Any) -> bool:
        """Return whether any daemon of the identity may serve any request, because nothing is kept. By default not.

        Then callers spread their requests over all daemons that serve it: docs/replicas.md.
        Called before the instance exists; do nothing but compute.

        Args:
            config: an instance of ``Config``.
        """
        return False

    @classmethod
    def claims_calls(cls, config: Any) -> bool:
        """Return whether retried calls are claimed in a store that all daemons of the identity share. By default not.

        Then a retried call may go to another daemon, which finds there what has become of it.
        Called before the instance exists; do nothing but compute.

        Args:
            config: an instance of ``Config``.
        """
        return False

    async def on_check(self) -> None:
        """Check the config beyond its types. Raise to reject it, and name the field: ``... - at `$.path```.

        Called before all other hooks: when the protocol is added, checked or reloaded, and at each start of the
        binding. It may run in a process of its own, and the workspace may not exist yet.
        """

    async def on_create(self) -> None:
        """Prepare the workspace, which exists and is empty. Called once, before the first ``on_activate``."""

    async def on_activate(self) -> None:
        """Open what the handlers need. Called each time before the binding accepts requests."""

    async def on_reload(self) -> None:
        """Apply a changed config while the binding serves. ``config`` and ``context`` are the new ones already."""

    async def on_home_changed(self) -> None:
        """Begin or end being on standby: ``home_elsewhere`` says which, and is set already.

        Let go on standby of what two daemons share, such as the lock of a database. Called while the binding is active.
        """

    async def on_deactivate(self) -> None:
        """Close what ``on_activate`` has opened. Called each time after the binding's last request has ended."""

    async def on_delete(self) -> None:
        """Undo what the protocol has done outside of its workspace, which is deleted next.

        Called when the owner removes the binding, if ``on_create`` was called. It may run in a process of its own,
        without ``on_activate``. If it raises ``StorageFailed`` or ``StorageHeld``, the binding is not removed, unless
        its owner keeps the data. Other errors are logged.
        """

    async def describe_data(self) -> str | None:
        """Return a few words on the data in the workspace, for instance ``"3 mails"``.

        The command line shows them when it asks whether to delete the data. None has the daemon count the files.
        Called before the binding is removed, if its workspace has files. It runs in a process of its own, while the
        binding may be serving in another one: read, and change nothing.
        """
        return None


@overload
def request(handler: Handler, /) -> Handler: ...
@overload
def request(command: str, /) -> Callable[[Handler], Handler]: ...
def request(handler: Any, /) -> Any:
    """Mark a method as the handler of a protocol's requests.

    ``@request`` marks the handler of requests without a command, ``@request("settings.add-forwarding")`` that of this
    command, and ``@request("*")`` that of all others. A protocol has at most one handler for each.

    The annotations say what the method takes. The first parameter is the request; for several kinds of request, a
    union of tagged Structs. A parameter annotated ``Peer`` is the caller, one annotated ``CallContext`` knows the
    deadline, one annotated ``BindingContext`` is the binding. The return value is the reply. The method raises
    ``ApplicationError`` to reject a request. A method that is not ``async`` runs in a thread.

    Static and class methods, decorated ones and partials can be marked as well. A method that overrides a handler is a
    handler too, and may be marked anew. A method that is marked several times serves several commands.

    Args:
        handler: the method, or the command: at most 64 characters, words with dots between them.

    Returns:
        The method; with a command, a decorator.

    Raises:
        InvalidName: no command can have this name.
        TypeError: the method is marked with ``@stream`` already, or cannot be marked.
    """
    if not isinstance(handler, str):
        return _mark(handler, _REQUEST, "")
    command = handler if handler == ANY_COMMAND else check_name(handler, "a command")
    return lambda function: _mark(function, _REQUEST, command)


def _mark(handler: Any, kind: str, command: str) -> Any:
    """Store the kind and command on a callable. Several marks of one kind add up."""
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
    """Mark a method as the handler of a protocol's sessions. A protocol has at most one.

    The first parameter is the ``Session``. A method that is not ``async`` takes that of ``fastn_p2p_client.sync``, and
    runs in a thread. A second parameter is the initial data; its annotation says what fits.

    The session is closed when the method returns, and reset when it raises. Until the method reads, writes or calls
    ``session.accept()`` for the first time, it may raise ``ApplicationError`` to reject the session: ``connect`` of
    the caller raises it.

    Args:
        handler: the method.

    Returns:
        The method.

    Raises:
        TypeError: the method is marked with ``@request`` already, or cannot be marked.
    """
    return cast(Handler, _mark(handler, _STREAM, ""))


def effective_access(protocol: Protocol | type[Protocol] | None, allow: tuple[str, ...]) -> tuple[str, ...]:
    """Return the peers that may use a binding: those that its owner has named, else those that its protocol declares.

    Args:
        protocol: the protocol's class or instance; None for plain handlers.
        allow: the owner's list: ``"peers"``, ``"everyone"``, ``"group:NAME"``, ID52s and petnames. Empty if the
            owner has named none.
    """
    return allow or (("everyone",) if protocol is not None and protocol.public is True else ("peers",))


def request_handlers(protocol: type[Protocol]) -> dict[str, list[str]]:
    """Return the names of a class's request handlers by command, those of a subclass first.

    The command ``""`` stands for requests without a command. A method that overrides a handler is one, marked or not.

    Args:
        protocol: the protocol class.
    """
    found: dict[str, list[str]] = {}
    for name, mark in _marked(protocol, _REQUEST).items():
        for command in dict.fromkeys(getattr(mark, _COMMANDS)):
            found.setdefault(command, []).append(name)
    return found


def stream_handlers(protocol: type[Protocol]) -> list[str]:
    """Return the names of a class's session handlers, those of a subclass first.

    A method that overrides a handler is one, marked or not.

    Args:
        protocol: the protocol class.
    """
    return list(_marked(protocol, _STREAM))


def method_of(instance: Protocol, name: str) -> Callable[..., Any]:
    """Return a bound method, also where an attribute of the instance has the same name.

    Args:
        instance: the protocol object.
        name: name of the method.
    """
    cls = type(instance)
    found = inspect.getattr_static(cls, name)
    return cast(Callable[..., Any], found.__get__(instance, cls) if hasattr(found, "__get__") else found)


def _marked(protocol: type[Protocol], kind: str) -> dict[str, Any]:
    """Return the marked attributes of a class by name: for each name, the first in the order of its bases."""
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
    """Return False for a value with which a subclass removes a handler, for instance ``None``."""
    return callable(value) or isinstance(value, classmethod | functools.partialmethod)
