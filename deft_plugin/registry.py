"""Names of one kind of thing, with their loaders and what plugins say of them; nothing is loaded to know that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, ParamSpec, Protocol, TypeVar

from deft_plugin.errors import DeftError, DuplicateNameError, InputError, UnknownNameError, did_you_mean
from deft_plugin.types import HasTraits

P = ParamSpec("P")
ThingT = TypeVar("ThingT")
TraitsT = TypeVar("TraitsT")
LoaderT_contra = TypeVar("LoaderT_contra", contravariant=True)
TraitsT_contra = TypeVar("TraitsT_contra", contravariant=True)

_FORMER_ATTRIBUTES = ("needs_images", "needs_pixels")
"""Classes said this of themselves before there were traits. To pass over it in silence would change verdicts."""


class Register(Protocol[LoaderT_contra, TraitsT_contra]):
    """What a ``register_<plural>`` hook is handed."""

    def __call__(
        self,
        name: str,
        loader: LoaderT_contra,
        *,
        summary: str = "",
        accepts: Callable[[str], bool] | None = None,
        traits: TraitsT_contra | None = None,
    ) -> None:
        """Register a name; see `Registry.add`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[P, ThingT, TraitsT]):
    """One registered name.

    Attributes
    ----------
    name : str
    loader : callable
        Imports and builds the thing; called on use.
    plugin : str
        Name of the plugin it comes from.
    summary : str
        One line for ``deft plugins``.
    accepts : callable, optional
        Tells whether this entry also answers to another name (a family of names). Must be cheap.
    traits : SelectorTraits, NoiseTraits or None
        What the thing says of itself; None for kinds that say nothing.
    """

    name: str
    loader: Callable[P, ThingT]
    plugin: str
    summary: str
    accepts: Callable[[str], bool] | None
    traits: TraitsT


class Registry(Generic[P, ThingT, TraitsT]):
    """Names of one kind, each with its loader, its traits and the plugin it comes from.

    Parameters
    ----------
    kind : str
        As errors call it: "selector", "backbone".
    default_traits : SelectorTraits, NoiseTraits or None
        Of a name that is registered without traits. None if things of this kind have none.
    check_traits : callable, optional
        Called with traits and with whose they are, and raises if they cannot be.
    """

    def __init__(
        self, kind: str, default_traits: TraitsT, *, check_traits: Callable[[TraitsT, str], None] | None = None
    ) -> None:
        self.kind = kind
        self._default_traits = default_traits
        self._check_traits = check_traits
        self._entries: dict[str, Entry[P, ThingT, TraitsT]] = {}

    def __iter__(self) -> Iterator[Entry[P, ThingT, TraitsT]]:
        return iter(self._entries.values())

    def add(
        self,
        plugin: str,
        name: str,
        loader: Callable[P, ThingT],
        *,
        summary: str = "",
        accepts: Callable[[str], bool] | None = None,
        traits: TraitsT | None = None,
    ) -> None:
        """Add a name.

        Parameters
        ----------
        plugin, name : str
        loader : callable
            Imports and builds the thing; called on use.
        summary : str
            One line for ``deft plugins``.
        accepts : callable, optional
            Tells whether this entry also answers to another name. Must be cheap.
        traits : SelectorTraits or NoiseTraits, optional
            What the thing says of itself; the defaults if left out.

        Raises
        ------
        DuplicateNameError
            If the name is taken; names both plugins.
        InputError
            If the name cannot be shown or typed, or the traits are of another kind, or say what nobody knows.
        """
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or "," in name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"Expected a printable {self.kind} name without commas, but got {name!r:.80}.")
        if taken := self._entries.get(name):
            raise DuplicateNameError(
                f"Expected each {self.kind} name once, but {name!r} is registered by plugin {taken.plugin!r} and "
                f"by plugin {plugin!r}. Rename it in one of them, or uninstall one."
            )
        known = self._default_traits if traits is None else traits
        whose = self._whose(name, plugin)
        if not isinstance(known, type(self._default_traits)):
            expected = "no traits" if self._default_traits is None else f"a {type(self._default_traits).__name__}"
            raise InputError(f"Expected {expected} for {whose}, but got traits={known!r}.")
        if self._check_traits:
            self._check_traits(known, whose)
        self._entries[name] = Entry(
            name=name, loader=loader, plugin=plugin, summary=summary, accepts=accepts, traits=known
        )

    def get(self, name: str) -> Entry[P, ThingT, TraitsT]:
        """Find the entry that answers to `name`.

        Raises
        ------
        UnknownNameError
            With the closest match and all known names.
        """
        if name in self._entries:
            return self._entries[name]
        for entry in self:
            if entry.accepts and entry.accepts(name):
                return entry
        raise UnknownNameError(f"Unknown {self.kind} {name!r}. {did_you_mean(name, self._entries)}")

    def load(self, name: str, /, *arguments: P.args, **keywords: P.kwargs) -> ThingT:
        """Call the loader of the entry that answers to `name`.

        Parameters
        ----------
        name : str
        *arguments, **keywords
            The loader's: none for most kinds, the name for a backbone.

        Raises
        ------
        UnknownNameError
        InputError
            If what was loaded says other things of itself than were said when it was registered.
        DeftError
            If the loader raises; names the plugin. Errors of this package pass as they are.
        """
        entry = self.get(name)
        try:
            thing = entry.loader(*arguments, **keywords)
        except DeftError:
            raise
        except Exception as error:
            raise DeftError(
                f"Could not load {self.kind} {name!r} of plugin {entry.plugin!r}: {type(error).__name__}: {error}"
            ) from error
        self._check_loaded(thing, entry)
        return thing

    def _check_loaded(self, thing: ThingT, entry: Entry[P, ThingT, TraitsT]) -> None:
        if self._default_traits is None:
            return
        whose = self._whose(entry.name, entry.plugin)
        own: object = thing.traits if isinstance(thing, HasTraits) else None
        if isinstance(own, type(self._default_traits)) and own != entry.traits:
            raise InputError(
                f"Expected {whose} to be registered with the traits that it has, but it has {own!r} and is registered "
                f"with {entry.traits!r}. Write register({entry.name!r}, ..., traits=...) with its own."
            )
        if entry.traits == self._default_traits:
            where = f"register({entry.name!r}, ..., traits={type(entry.traits).__name__}({{0}}=...))"
            refuse_former_attributes(thing, whose, where)

    def _whose(self, name: str, plugin: str) -> str:
        return f"{self.kind} {name!r} of plugin {plugin!r}"


def refuse_former_attributes(thing: object, whose: str, where: str) -> None:
    """Refuse a thing that says by an attribute of its class what is now said by traits.

    Parameters
    ----------
    thing : selector or noise model
    whose : str
        What it is called in the error.
    where : str
        What to write instead, with ``{0}`` for the attribute.

    Raises
    ------
    InputError
        That says what to write instead.
    """
    for name in _FORMER_ATTRIBUTES:
        if hasattr(thing, name):
            raise InputError(
                f"Expected traits to say what {whose} needs, but it has an attribute {name!r}, which is no longer "
                f"read. Write {where.format(name)} instead, and remove the attribute."
            )
