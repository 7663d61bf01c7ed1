"""The plugin host: finds plugins, calls their hooks, keeps what they registered by name."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import pluggy

from deft_plugin import hookspecs
from deft_plugin.errors import DuplicateNameError, InputError, did_you_mean
from deft_plugin.registry import Entry, Register, Registry, refuse_former_attributes
from deft_plugin.types import Consumed, HasTraits, Need, NoiseTraits, Selector, SelectorTraits

if TYPE_CHECKING:
    from deft_plugin.types import Backbone, NoiseModel

__all__ = [
    "ENTRY_POINT_GROUP",
    "Entry",
    "PluginFailure",
    "Plugins",
    "Register",
    "Registry",
    "build_plugin_manager",
    "check_selector_traits",
    "load_plugins",
    "traits_of",
]

ENTRY_POINT_GROUP = "deft_plugin"

RegistryT = TypeVar("RegistryT", bound=Registry[..., Any, Any])


@dataclass(frozen=True, kw_only=True)
class PluginFailure:
    """A plugin that raised while it was loaded or asked to register."""

    plugin: str
    error: Exception

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} failed and is left out: {type(self.error).__name__}: {self.error}"


class Plugins:
    """Loaded plugins and what they offer.

    Attributes
    ----------
    manager : pluggy.PluginManager
    failures : list of PluginFailure
        Broken plugins; the others work on.
    """

    def __init__(self, manager: pluggy.PluginManager, failures: list[PluginFailure]) -> None:
        self.manager = manager
        self.failures = failures

    @functools.cached_property
    def selectors(self) -> Registry[[], Selector, SelectorTraits]:
        """Selectors by name."""
        registry: Registry[[], Selector, SelectorTraits] = Registry(
            "selector", SelectorTraits(), check_traits=check_selector_traits
        )
        return self._fill(registry, "register_selectors")

    @functools.cached_property
    def backbones(self) -> Registry[[str], Backbone, None]:
        """Vision-language models by name; loaders are called with the name that was asked for."""
        registry: Registry[[str], Backbone, None] = Registry("backbone", None)
        return self._fill(registry, "register_backbones")

    @functools.cached_property
    def datasets(self) -> Registry[[], Any, None]:
        """Data sets for comparisons by name: whatever ``deft_plugin.detect`` takes."""
        registry: Registry[[], Any, None] = Registry("data set", None)
        return self._fill(registry, "register_datasets")

    @functools.cached_property
    def noise_models(self) -> Registry[[], NoiseModel, NoiseTraits]:
        """Generators of label noise by name."""
        registry: Registry[[], NoiseModel, NoiseTraits] = Registry("noise model", NoiseTraits())
        return self._fill(registry, "register_noise_models")

    def find_selector(self, method: str | Selector) -> tuple[str, Selector, SelectorTraits]:
        """Give the name, the object and the traits of a selector, by its registered name or as it is handed over.

        Raises
        ------
        UnknownNameError
            If nobody registered the name.
        InputError
            See `traits_of`.
        """
        if isinstance(method, str):
            return method, self.selectors.load(method), self.selectors.get(method).traits
        return type(method).__name__, method, traits_of(method)

    def call_each(self, hook: str, **arguments: Callable[[str], object]) -> None:
        """Call `hook` of each plugin by itself, so that one that raises does not stop the others.

        Each argument is a function from the plugin's name to the value that its hook is handed.
        """
        plugins = self.manager.list_name_plugin()
        for name, plugin in plugins:
            if plugin is None:  # pluggy keeps the names of blocked plugins
                continue
            others = [other for _, other in plugins if other is not None and other is not plugin]
            caller = self.manager.subset_hook_caller(hook, remove_plugins=others)
            try:
                caller(**{key: of_plugin(name) for key, of_plugin in arguments.items()})
            except DuplicateNameError:
                raise
            except Exception as error:
                self.report(PluginFailure(plugin=name, error=error))

    def _fill(self, registry: RegistryT, hook: str) -> RegistryT:
        self.call_each(hook, register=lambda plugin: functools.partial(registry.add, plugin))
        return registry

    def report(self, failure: PluginFailure) -> None:
        """Keep a failure and warn of it."""
        self.failures.append(failure)
        warnings.warn(str(failure), RuntimeWarning, stacklevel=2)


def check_selector_traits(traits: SelectorTraits, whose: str) -> None:
    """Refuse what selectors cannot consume or need.

    Parameters
    ----------
    traits : SelectorTraits
    whose : str
        What the selector is called in the error.

    Raises
    ------
    InputError
        With the closest word that is known.
    """
    for field, words, known in (
        ("consumes", traits.consumes, get_args(Consumed)),
        ("needs", traits.needs, get_args(Need)),
    ):
        if isinstance(words, str):  # ("features") is no tuple, and its letters would be taken for words
            raise InputError(
                f"Expected {field} of {whose} to be a tuple of words, but got {words!r}. Write ({words!r},)."
            )
        for word in words:
            if word not in known:
                raise InputError(f"Unknown word {word!r} in {field} of {whose}. {did_you_mean(str(word), known)}")


def traits_of(selector: object) -> SelectorTraits:
    """Give the traits of a selector that is handed over without being registered: its own, else the defaults.

    Raises
    ------
    InputError
        If it is no selector, its attribute ``traits`` is something else, or it has the attribute ``needs_images``,
        which said so before there were traits.
    """
    kind = type(selector).__name__
    if not isinstance(selector, Selector):
        raise InputError(
            f"Expected method to be the name of a selector, or an object with select(run), but got {kind} {selector!r}."
        )
    whose = f"selector {kind!r}"
    if not isinstance(selector, HasTraits):
        refuse_former_attributes(selector, whose, "`traits = SelectorTraits({0}=...)` in its class")
        return SelectorTraits()
    traits = cast(object, selector.traits)  # whatever its author calls so
    if not isinstance(traits, SelectorTraits):
        raise InputError(
            f"Expected the attribute `traits` of {whose} to be a SelectorTraits, but it is {traits!r}. "
            "Write `traits = SelectorTraits(...)`, or give the attribute another name."
        )
    check_selector_traits(traits, whose)
    return traits


def build_plugin_manager() -> pluggy.PluginManager:
    """Make a plugin manager that knows the hooks and no plugin yet."""
    manager = pluggy.PluginManager("deft_plugin")
    manager.add_hookspecs(hookspecs)
    return manager


def load_plugins() -> Plugins:
    """Load every installed plugin; one that cannot be loaded is reported and left out.

    Raises
    ------
    DuplicateNameError
        If two entry points have the same name.
    """
    plugins = Plugins(build_plugin_manager(), [])
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        if plugins.manager.has_plugin(point.name):
            raise DuplicateNameError(
                f"Expected each plugin name once, but two installed packages have an entry point {point.name!r} in "
                f"the group {ENTRY_POINT_GROUP!r}; the second is {point.value!r}. Uninstall one."
            )
        try:
            plugin = point.load()
            hash(plugin)  # pluggy fails later, for all plugins, on one that it cannot hash
            plugins.manager.register(plugin, name=point.name)
            plugins.manager.check_pending()  # a function marked as a hook that does not exist
        except Exception as error:
            if plugins.manager.has_plugin(point.name):  # pluggy keeps the hooks before the one that is wrong
                plugins.manager.unregister(name=point.name)
            plugins.report(PluginFailure(plugin=point.name, error=error))
    return plugins
