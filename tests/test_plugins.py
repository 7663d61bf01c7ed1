"""The plugin host, with plugins that are written here and found through the real entry-point group."""

from __future__ import annotations

import pytest

from deft_plugin.errors import DeftError, DuplicateNameError, InputError, UnknownNameError
from deft_plugin.plugins import (
    Plugins,
    Registry,
    build_plugin_manager,
    check_selector_traits,
    load_plugins,
    traits_of,
)
from deft_plugin.types import SelectorTraits

BUILT_IN_SELECTORS = {
    "deft": "core",
    "label_match": "adapters",
    "small_loss": "adapters",
    "gmm": "adapters",
    "confident_learning": "adapters",
    "small_loss_batch": "adapters",
    "aum": "adapters",
    "knn_vote": "adapters",
    "clipcleaner": "adapters",
    "lemon": "adapters",
    "jsd_uniform": "adapters",
    "prototype_gmm": "adapters",
    "matched_high_confidence": "adapters",
    "longremix": "adapters",
}


def registers(name, **options):
    """A hook that registers one name."""

    def hook(register):
        register(name, lambda: f"the {name}", **options)

    return hook


def names(registry):
    return [entry.name for entry in registry]


def test_built_in_plugins_come_through_the_entry_points():
    plugins = load_plugins()
    assert {name for name, _ in plugins.manager.list_name_plugin()} >= {"core", "adapters", "benchmarks"}
    assert {entry.name: entry.plugin for entry in plugins.selectors}.items() >= BUILT_IN_SELECTORS.items()
    assert {entry.name: entry.plugin for entry in plugins.backbones}.items() >= {
        "bridge-lite0": "core",
        "open_clip": "core",
    }.items()
    assert {"sym", "sym_others", "asym", "idn", "idn_shared"} <= set(names(plugins.noise_models))
    assert "clothing_demo" in names(plugins.datasets)
    assert plugins.failures == []


def test_every_built_in_name_has_a_summary():
    plugins = load_plugins()
    for registry in (plugins.selectors, plugins.backbones, plugins.datasets, plugins.noise_models):
        assert all(entry.summary for entry in registry)


@pytest.mark.parametrize("name", BUILT_IN_SELECTORS)
def test_loaders_make_selectors(name):
    entry = load_plugins().selectors.get(name)
    selector = entry.loader()
    assert entry.traits.needs_images is (name != "confident_learning")
    assert callable(selector.select)
    assert type(selector).__name__.lower() == name.replace("_", "")


def test_nothing_is_loaded_by_a_new_manager():
    assert build_plugin_manager().list_name_plugin() == []
    assert build_plugin_manager() is not build_plugin_manager()


def test_an_outsider_registers_everything(install, make_plugin):
    hooks = ("register_selectors", "register_backbones", "register_datasets", "register_noise_models")
    install(outsider=make_plugin(**{hook: registers("mine", summary="my own") for hook in hooks}))
    plugins = load_plugins()
    for registry in (plugins.selectors, plugins.backbones, plugins.datasets, plugins.noise_models):
        entry = registry.get("mine")
        assert (entry.plugin, entry.summary, entry.loader()) == ("outsider", "my own", "the mine")


def test_commands_are_added(install, make_plugin):
    class App:
        added = []  # noqa: RUF012

    def register_commands(app):
        app.added.append("from the outsider")

    install(outsider=make_plugin(register_commands=register_commands))
    plugins = load_plugins()
    plugins.manager.unregister(name="benchmarks")  # it wants a real click group
    plugins.call_each("register_commands", app=lambda _plugin: App)
    assert App.added == ["from the outsider"]


class TestBrokenPlugins:
    def test_one_that_cannot_be_imported(self, install, make_plugin):
        def fail():
            raise ImportError("no module named 'flux'")

        install(aa_broken=fail, working=make_plugin(register_selectors=registers("mine")))
        with pytest.warns(RuntimeWarning, match=r"'aa_broken' failed.*ImportError: no module named 'flux'"):
            plugins = load_plugins()
        assert [failure.plugin for failure in plugins.failures] == ["aa_broken"]
        assert {"mine", *BUILT_IN_SELECTORS} <= set(names(plugins.selectors))

    def test_one_whose_hook_raises(self, install, make_plugin):
        def register_selectors(register):
            raise ZeroDivisionError("oh no")

        broken = make_plugin(register_selectors=register_selectors, register_backbones=registers("my_backbone"))
        install(aa_broken=broken, zz_working=make_plugin(register_selectors=registers("mine")))
        plugins = load_plugins()
        with pytest.warns(RuntimeWarning, match=r"'aa_broken' failed.*ZeroDivisionError: oh no"):
            selectors = plugins.selectors
        assert {"mine", *BUILT_IN_SELECTORS} <= set(names(selectors))
        assert "my_backbone" in names(plugins.backbones)
        assert [(failure.plugin, str(failure.error)) for failure in plugins.failures] == [("aa_broken", "oh no")]

    def test_it_is_reported_once(self, install, make_plugin):
        def register_selectors(register):
            raise ZeroDivisionError("oh no")

        install(broken=make_plugin(register_selectors=register_selectors))
        plugins = load_plugins()
        with pytest.warns(RuntimeWarning) as caught:
            assert plugins.selectors is plugins.selectors
        assert len(caught) == len(plugins.failures) == 1

    def test_a_wrong_argument_name(self, install, make_plugin):
        """Hooks of the same plugin that came before the wrong one must not stay."""

        def register_selectors(registry):
            """Takes `registry` instead of `register`."""

        broken = make_plugin(register_backbones=registers("my_backbone"), register_selectors=register_selectors)
        install(broken=broken, working=make_plugin(register_selectors=registers("mine")))
        with pytest.warns(RuntimeWarning, match=r"(?s)'broken' failed.*register_selectors.*registry"):
            plugins = load_plugins()
        assert "mine" in names(plugins.selectors)
        assert "my_backbone" not in names(plugins.backbones)
        assert "broken" not in dict(plugins.manager.list_name_plugin())

    def test_a_hook_that_does_not_exist(self, install, make_plugin):
        broken = make_plugin(register_selector=registers("mine"))
        install(broken=broken, working=make_plugin(register_selectors=registers("other")))
        with pytest.warns(RuntimeWarning, match=r"'broken' failed.*unknown hook 'register_selector'"):
            plugins = load_plugins()
        assert "other" in names(plugins.selectors)
        assert [failure.plugin for failure in plugins.failures] == ["broken"]

    def test_an_object_that_cannot_be_hashed(self, install, make_plugin):
        install(broken=lambda: ["no plugin"], working=make_plugin(register_selectors=registers("mine")))
        with pytest.warns(RuntimeWarning, match="'broken' failed.*unhashable"):
            plugins = load_plugins()
        assert "mine" in names(plugins.selectors)

    def test_an_unmarked_function_is_no_hook(self, install, make_plugin):
        plugin = make_plugin()
        plugin.register_selectors = registers("mine")
        install(forgetful=plugin)
        assert "mine" not in names(load_plugins().selectors)


class TestNames:
    def test_two_plugins_with_one_selector_name(self, install, make_plugin):
        install(rival=make_plugin(register_selectors=registers("gmm")))
        plugins = load_plugins()
        with pytest.raises(DuplicateNameError, match=r"selector name.*'gmm'.*'adapters'.*'rival'"):
            _ = plugins.selectors

    def test_one_plugin_that_registers_a_name_twice(self, install, make_plugin):
        def register_backbones(register):
            register("mine", lambda name: None)
            register("mine", lambda name: None)

        install(stutterer=make_plugin(register_backbones=register_backbones))
        plugins = load_plugins()
        with pytest.raises(DuplicateNameError, match=r"'mine'.*'stutterer'.*'stutterer'"):
            _ = plugins.backbones

    def test_the_same_name_for_different_kinds_is_no_duplicate(self, install, make_plugin):
        hooks = ("register_selectors", "register_backbones")
        install(outsider=make_plugin(**{hook: registers("mine") for hook in hooks}))
        plugins = load_plugins()
        assert plugins.selectors.get("mine").name == plugins.backbones.get("mine").name == "mine"

    def test_two_packages_with_one_entry_point_name(self, install, make_plugin):
        install(adapters=make_plugin(register_selectors=registers("mine")))
        with pytest.raises(DuplicateNameError, match=r"'adapters'.*'adapters_module'"):
            load_plugins()

    @pytest.mark.parametrize(
        ("typed", "meant"), [("smal_loss", "small_loss"), ("GMM", "gmm"), ("Label-Match", "label_match")]
    )
    def test_an_unknown_name_gets_the_closest_match(self, typed, meant):
        with pytest.raises(UnknownNameError) as caught:
            load_plugins().selectors.get(typed)
        message = str(caught.value)
        assert f"Unknown selector {typed!r}" in message
        assert f"Did you mean {meant!r}?" in message
        assert all(name in message for name in BUILT_IN_SELECTORS)

    def test_a_name_like_no_other_gets_the_list(self):
        with pytest.raises(UnknownNameError, match=r"Known: .*deft") as caught:
            load_plugins().selectors.get("xyzzy")
        assert "Did you mean" not in str(caught.value)

    def test_an_empty_registry(self):
        with pytest.raises(UnknownNameError, match=r"Unknown thing 'x'\. Known: none\."):
            Registry("thing", None).get("x")


class TestFamilies:
    def test_a_family_answers_to_its_names_and_gets_what_was_typed(self):
        registry = Registry("backbone", None)
        registry.add("one", "exact/name", lambda name: ("exact", name))
        registry.add("two", "family", lambda name: ("family", name), accepts=lambda name: "/" in name)
        assert registry.get("other/name").loader("other/name") == ("family", "other/name")
        assert registry.get("family").plugin == "two"
        # An exact name goes before a family that would take it too.
        assert registry.get("exact/name").plugin == "one"
        with pytest.raises(UnknownNameError, match="Known: exact/name, family"):
            registry.get("neither")

    @pytest.mark.parametrize(
        ("name", "entry"),
        [("bridge-lite0", "bridge-lite0"), ("ViT-B-16/openai", "open_clip"), ("RN50/yfcc15m", "open_clip")],
    )
    def test_built_in_backbones(self, name, entry):
        assert load_plugins().backbones.get(name).name == entry

    def test_a_folder_is_an_open_clip_name(self, tmp_path):
        assert load_plugins().backbones.get(str(tmp_path)).name == "open_clip"


class TestEvents:
    def test_listeners_are_called(self, make_plugin):
        heard = []
        manager = build_plugin_manager()
        for name in ("one", "two"):

            def deft_epoch_end(event, name=name):
                heard.append((name, event))

            manager.register(make_plugin(deft_epoch_end=deft_epoch_end), name=name)
        manager.hook.deft_epoch_end(event="an event")
        assert sorted(heard) == [("one", "an event"), ("two", "an event")]

    def test_one_that_raises_does_not_stop_the_others(self, make_plugin):
        heard = []

        def fail(event):
            raise OSError("no connection")

        plugins = Plugins(build_plugin_manager(), [])
        plugins.manager.register(make_plugin(deft_epoch_end=fail), name="logger")
        plugins.manager.register(make_plugin(deft_epoch_end=lambda event: heard.append(event)), name="other")
        with pytest.warns(RuntimeWarning, match="'logger' failed.*no connection"):
            plugins.call_each("deft_epoch_end", event=lambda _plugin: "an event")
        assert heard == ["an event"]

    def test_blocked_plugins_are_passed_over(self, make_plugin):
        plugins = Plugins(build_plugin_manager(), [])
        plugins.manager.set_blocked("nobody")
        plugins.manager.register(make_plugin(register_selectors=registers("mine")), name="somebody")
        assert names(plugins.selectors) == ["mine"]


def test_a_loader_that_raises_is_named_with_its_plugin(install, make_plugin):
    def load():
        raise ImportError("no module named cupy")

    registry = Registry("selector", None)
    registry.add("their-plugin", "theirs", load)
    with pytest.raises(DeftError, match=r"'theirs' of plugin 'their-plugin': ImportError: no module named cupy"):
        registry.load("theirs")


class TestTraits:
    def test_of_every_selector_without_loading_one(self, monkeypatch):
        monkeypatch.setattr(Registry, "load", lambda *_: pytest.fail("loaded"))
        traits = {entry.name: entry.traits for entry in load_plugins().selectors}
        assert traits["deft_faithful"].needs == ("cone",)
        assert traits["deft_mixture"].variant_of == "deft"
        assert [name for name, one in traits.items() if one.is_told_noise_ratio] == ["small_loss", "small_loss_batch"]

    def test_a_selector_that_is_handed_over(self):
        class Quiet:
            def select(self, run):
                return None

        class Says(Quiet):
            traits = SelectorTraits(needs_images=False)

        assert traits_of(Quiet()) == SelectorTraits()
        assert traits_of(Says()).needs_images is False

    def test_the_former_attribute_is_refused(self):
        class Old:
            needs_images = False

            def select(self, run):
                return None

        with pytest.raises(InputError, match=r"has an attribute 'needs_images', which is no longer read\."):
            traits_of(Old())

    def test_traits_of_another_kind(self):
        class Odd:
            traits = {"needs_images": False}  # noqa: RUF012

            def select(self, run):
                return None

        with pytest.raises(InputError, match="Expected the attribute `traits` of selector 'Odd' to be a Sel"):
            traits_of(Odd())

    @pytest.mark.parametrize(
        ("traits", "words"),
        [
            ({"consumes": ("feature",)}, "Unknown word 'feature' in consumes of .*Did you mean 'features'"),
            ({"needs": ("cones",)}, "Unknown word 'cones' in needs of .*Did you mean 'cone'"),
            ({"consumes": "features"}, r"Expected consumes of .* to be a tuple of words.*write \('features',\)"),
        ],
    )
    def test_words_that_nobody_knows(self, traits, words):
        with pytest.raises(InputError, match=words):
            check_selector_traits(SelectorTraits(**traits), "selector 'x' of plugin 'y'")

    def test_no_selector_at_all(self):
        with pytest.raises(InputError, match="Expected method to be the name of a selector, or an object with select"):
            traits_of(7)
