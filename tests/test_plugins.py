"""The plugin host, with plugins that are written here and found through the real entry-point group."""

from __future__ import annotations

import numpy as np
import pytest

import deft_plugin
from deft_plugin import Detector, NoiseTraits, Selection, SelectorTraits
from deft_plugin.errors import DeftError, DuplicateNameError, InputError, UnknownNameError
from deft_plugin.plugins import Plugins, Registry, build_plugin_manager, load_plugins, traits_of

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
    selector = load_plugins().selectors.load(name)
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


class Votes:
    """A selector that goes by pred_probs, and says nothing of itself."""

    def select(self, run):
        chosen = run.pred_probs.argmax(1)
        quality = run.pred_probs[range(len(chosen)), run.labels]
        return Selection(is_clean=chosen == run.labels, label_quality=quality, predicted_labels=chosen)


class OldVotes(Votes):
    """The same, as it was written before there were traits."""

    needs_images = False


def voting(**attributes):
    """Make a selector whose class has these attributes."""
    return type("Voting", (Votes,), attributes)()


class TestTraitsOfRegisteredNames:
    def test_of_every_selector_without_loading_one(self, monkeypatch):
        monkeypatch.setattr(Registry, "load", lambda *_: pytest.fail("loaded"))
        traits = {entry.name: entry.traits for entry in load_plugins().selectors}
        assert traits["deft_faithful"].needs == ("cone",)
        assert traits["deft_mixture"].variant_of == "deft"
        assert [name for name, one in traits.items() if one.is_told_noise_ratio] == ["small_loss", "small_loss_batch"]

    def test_an_outsider_that_needs_no_images(self, install, make_plugin):
        """Its traits are known before it is loaded, and are what `detect` goes by."""
        loaded, traits = [], SelectorTraits(needs_images=False, consumes=("pred_probs",))

        def register_selectors(register):
            register("votes", lambda: loaded.append("votes") or Votes(), traits=traits)

        install(outsider=make_plugin(register_selectors=register_selectors))
        plugins = load_plugins()
        assert plugins.selectors.get("votes").traits == traits
        assert loaded == []
        labels, pred_probs = [0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
        issues = deft_plugin.find_label_issues(labels=labels, pred_probs=pred_probs, method="votes")
        assert issues.tolist() == [False, True, False]
        with pytest.raises(InputError, match=r"Expected data \(images\)"):  # by default a selector needs them
            deft_plugin.detect(labels=labels, pred_probs=pred_probs, method=Votes())

    def test_defaults(self, install, make_plugin):
        hooks = ("register_selectors", "register_backbones", "register_datasets", "register_noise_models")
        install(outsider=make_plugin(**{hook: registers("mine") for hook in hooks}))
        plugins = load_plugins()
        assert plugins.selectors.get("mine").traits == SelectorTraits()
        assert plugins.noise_models.get("mine").traits == NoiseTraits()
        assert plugins.backbones.get("mine").traits is plugins.datasets.get("mine").traits is None

    @pytest.mark.parametrize(
        ("traits", "words"),
        [
            (SelectorTraits(consumes=("featurs",)), r"word 'featurs' in consumes of .* Did you mean 'features'\?"),
            (SelectorTraits(needs=("cones",)), r"word 'cones' in needs of .* Did you mean 'cone'\?"),
            (SelectorTraits(needs=("cone")), r"needs of .* to be a tuple of words, but got 'cone'\. Write \('cone',\)"),
            (NoiseTraits(), r"Expected a SelectorTraits for .* but got traits=NoiseTraits"),
            ({"needs_images": False}, r"Expected a SelectorTraits for .* but got traits=\{"),
        ],
    )
    def test_wrong_traits_name_plugin_and_selector(self, install, make_plugin, traits, words):
        install(outsider=make_plugin(register_selectors=registers("odd", traits=traits)))
        plugins = load_plugins()
        with pytest.warns(RuntimeWarning, match=words) as caught:
            selectors = plugins.selectors
        assert "selector 'odd' of plugin 'outsider'" in str(caught[0].message)
        assert "odd" not in names(selectors)
        assert "deft" in names(selectors)

    def test_a_backbone_has_none(self, install, make_plugin):
        install(outsider=make_plugin(register_backbones=registers("odd", traits=SelectorTraits())))
        plugins = load_plugins()
        with pytest.warns(RuntimeWarning, match="Expected no traits for backbone 'odd' of plugin 'outsider'"):
            assert "odd" not in names(plugins.backbones)

    def test_an_old_attribute_is_not_passed_over(self, install, make_plugin):
        def register_selectors(register):
            register("old", OldVotes)
            register("mended", OldVotes, traits=SelectorTraits(needs_images=False))

        install(outsider=make_plugin(register_selectors=register_selectors))
        selectors = load_plugins().selectors
        with pytest.raises(
            InputError,
            match=r"selector 'old' of plugin 'outsider' needs, but it has an attribute 'needs_images'.*"
            r"Write register\('old', \.\.\., traits=SelectorTraits\(needs_images=\.\.\.\)\)",
        ):
            selectors.load("old")
        assert isinstance(selectors.load("mended"), OldVotes)

    def test_a_noise_model_with_an_old_attribute(self):
        registry = Registry("noise model", NoiseTraits())
        registry.add("outsider", "old", lambda: type("Old", (), {"needs_pixels": True})())
        with pytest.raises(InputError, match=r"noise model 'old' .* traits=NoiseTraits\(needs_pixels=\.\.\.\)"):
            registry.load("old")

    def test_what_is_registered_and_what_it_says_itself_are_one(self):
        own = SelectorTraits(needs_images=False)
        registry = Registry("selector", SelectorTraits())
        registry.add("outsider", "same", lambda: voting(traits=own), traits=own)
        registry.add("outsider", "other", lambda: voting(traits=own))
        registry.add("outsider", "its own word", lambda: voting(traits=["brave"]))
        assert registry.load("same").traits == own
        assert registry.load("its own word").traits == ["brave"]
        with pytest.raises(InputError, match=r"'other' of plugin 'outsider'.*needs_images=False.*needs_images=True"):
            registry.load("other")

    @pytest.mark.parametrize("name", [entry.name for entry in load_plugins().selectors])
    def test_built_in_selectors_say_one_thing(self, name):
        """Loading compares; and whoever hands the object over itself must not be asked for other things."""
        registry = load_plugins().selectors
        traits, own = registry.get(name).traits, traits_of(registry.load(name))
        assert (own.needs_images, own.learns) == (traits.needs_images, traits.learns)


class TestTraitsOfObjects:
    def test_the_default(self):
        assert traits_of(Votes()) == SelectorTraits()

    def test_its_own(self):
        assert traits_of(voting(traits=SelectorTraits(needs_images=False))) == SelectorTraits(needs_images=False)
        labels, pred_probs = [0, 1], np.array([[0.9, 0.1], [0.8, 0.2]])
        method = voting(traits=SelectorTraits(needs_images=False))
        detection = deft_plugin.detect(labels=labels, pred_probs=pred_probs, method=method)
        assert (detection.method, detection.is_label_issue.tolist()) == ("Voting", [False, True])

    def test_a_detector_does_not_learn(self):
        assert Detector.traits == SelectorTraits(learns=False)

    @pytest.mark.parametrize(
        ("selector", "words"),
        [
            (
                OldVotes(),
                r"'OldVotes' .*'needs_images'.* `traits = SelectorTraits\(needs_images=\.\.\.\)` in its class",
            ),
            (voting(traits="brave"), "`traits` of selector 'Voting' to be a SelectorTraits, but it is 'brave'"),
            (voting(traits=SelectorTraits(needs=("gpu",))), "word 'gpu' in needs of selector 'Voting'.*cone, frozen"),
            (7, r"Expected method to be the name of a selector, or an object with select\(run\), but got int 7"),
        ],
        ids=["old", "another word", "unknown", "no selector"],
    )
    def test_what_cannot_be_used(self, selector, words, colours):
        with pytest.raises(InputError, match=words):
            deft_plugin.detect(colours.images, colours.labels, class_names=colours.names, method=selector)


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

    registry = Registry("selector", SelectorTraits())
    registry.add("their-plugin", "theirs", load)
    with pytest.raises(DeftError, match=r"'theirs' of plugin 'their-plugin': ImportError: no module named cupy"):
        registry.load("theirs")
