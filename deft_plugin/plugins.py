"""The plugin host: finds plugins, calls their hooks, keeps what they registered by name."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pluggy

from deft_plugin import hookspecs
from deft_plugin.errors import DeftError, DuplicateNameError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from deft_plugin.types import BackboneLoader, DatasetLoader, NoiseModelLoader, SelectorLoader

ENTRY_POINT_GROUP = "deft_plugin"

LoaderT = TypeVar("LoaderT")
LoaderT_contra = TypeVar("LoaderT_contra", contravariant=True)


class Register(Protocol[LoaderT_contra]):
    """What a ``register_<plural>`` hook is handed."""

    def __call__(
        self,
        name: str,
        loader: LoaderT_contra,
        *,
        summary: str = "",
        accepts: Callable[[str], bool] | None = None,
    ) -> None:
        """Register a name; see `Registry.add`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[LoaderT]):
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
    """

    name: str
    loader: LoaderT
    plugin: str
    summary: str
    accepts: Callable[[str], bool] | None


class Registry(Generic[LoaderT]):
    """Names of one kind ("selector", "backbone"), each with its loader and the plugin it comes from."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[LoaderT]] = {}

    def __iter__(self) -> Iterator[Entry[LoaderT]]:
        return iter(self._entries.values())

    def add(
        self,
        plugin: str,
        name: str,
        loader: LoaderT,
        *,
        summary: str = "",
        accepts: Callable[[str], bool] | None = None,
    ) -> None:
        """Add a name; a name that is already taken is an error that names both plugins."""
        if taken := self._entries.get(name):
            raise DuplicateNameError(
                f"Expected each {self.kind} name once, but {name!r} is registered by plugin {taken.plugin!r} and "
                f"by plugin {plugin!r}. Rename it in one of them, or uninstall one."
            )
        self._entries[name] = Entry(name=name, loader=loader, plugin=plugin, summary=summary, accepts=accepts)

    def get(self, name: str) -> Entry[LoaderT]:
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

    def load(self, name: str, *arguments: object) -> Any:
        """Call the loader of the entry that answers to `name`.

        Raises
        ------
        UnknownNameError
        DeftError
            If the loader raises; names the plugin. Errors of this package pass as they are.
        """
        entry = self.get(name)
        loader: Any = entry.loader
        try:
            return loader(*arguments)
        except DeftError:
            raise
        except Exception as error:
            raise DeftError(
                f"Could not load {self.kind} {name!r} of plugin {entry.plugin!r}: {type(error).__name__}: {error}"
            ) from error


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
    def selectors(self) -> Registry[SelectorLoader]:
        """Selectors by name."""
        return self._collect("selector", "register_selectors")

    @functools.cached_property
    def backbones(self) -> Registry[BackboneLoader]:
        """Vision-language models by name."""
        return self._collect("backbone", "register_backbones")

    @functools.cached_property
    def datasets(self) -> Registry[DatasetLoader]:
        """Data sets for comparisons by name."""
        return self._collect("data set", "register_datasets")

    @functools.cached_property
    def noise_models(self) -> Registry[NoiseModelLoader]:
        """Generators of label noise by name."""
        return self._collect("noise model", "register_noise_models")

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

    def _collect(self, kind: str, hook: str) -> Registry[Any]:
        registry: Registry[Any] = Registry(kind)
        self.call_each(hook, register=lambda plugin: functools.partial(registry.add, plugin))
        return registry

    def report(self, failure: PluginFailure) -> None:
        """Keep a failure and warn of it."""
        self.failures.append(failure)
        warnings.warn(str(failure), RuntimeWarning, stacklevel=2)


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
