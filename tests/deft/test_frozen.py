"""Frozen tuning on synthetic features, whose true classes are known, with a text tower of a few lines."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deft_plugin.deft.frozen import FrozenTuning
from deft_plugin.deft.losses import complementary_labels
from deft_plugin.deft.prompts import NEGATIVE, POSITIVE
from deft_plugin.deft.transition import symmetric_transition
from deft_plugin.deft.verdicts import background_logits
from deft_plugin.runs.folds import deal_folds
from deft_plugin.settings import FrozenSettings

DIM = 48
N_FOLDS = 4


class Tokens:
    def __init__(self, class_names):
        self.classes = [int(name) for name in class_names]
        self.num_classes = self.num_tokens = len(self.classes)


class TinyBackbone:
    """The text feature of class "3" lies at an angle to the middle of class 3; the context turns it."""

    context_dim, context_std, logit_scale, has_cone = 8, 0.1, 20.0, False

    def __init__(self, centres):
        generator = torch.Generator().manual_seed(11)
        self.texts = F.normalize(torch.as_tensor(centres), dim=-1) + 0.1 * torch.randn(
            centres.shape, generator=generator
        )
        self.turn = torch.randn(self.context_dim, DIM, generator=generator)
        self.encoded_prompts = 0

    def tokenize_prompts(self, class_names, n_ctx):
        return Tokens(class_names)

    def encode_prompts(self, tokens, context):
        self.encoded_prompts += tokens.num_classes
        with torch.autocast("cpu", enabled=False):
            return F.normalize(self.texts[tokens.classes] + 0.1 * context.mean(0) @ self.turn, dim=-1)


class Problem:
    """Images around class centres, some of them with a wrong label.

    `spread` is the length of what does not tell the class, beside 1 for what does.
    """

    def __init__(self, *, size=600, num_classes=6, noise=0.4, spread=1.0, seed=0):
        generator = np.random.default_rng(seed)
        self.num_classes = num_classes
        self.centres = generator.standard_normal((num_classes, DIM)).astype(np.float32) / math.sqrt(DIM)
        self.truth = np.arange(size) % num_classes
        features = self.centres[self.truth] + spread * generator.standard_normal((size, DIM)) / math.sqrt(DIM)
        self.features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)
        shift = generator.integers(1, num_classes, size)
        self.is_wrong = generator.random(size) < noise
        self.labels = np.where(self.is_wrong, (self.truth + shift) % num_classes, self.truth)
        self.folds = deal_folds(self.labels, np.arange(size), N_FOLDS, seed=0)
        self.backbone = TinyBackbone(self.centres)

    def tuning(self, *, seed=0, labels=None, folds=None, features=None, n_folds=N_FOLDS, **settings):
        return FrozenTuning(
            self.backbone,
            tuple(str(label) for label in range(self.num_classes)),
            self.features if features is None else features,
            self.labels if labels is None else labels,
            self.folds if folds is None else folds,
            n_folds=n_folds,
            settings=FrozenSettings(**{"n_ctx": 4, **settings}),
            seed=seed,
        )

    def scores(self, **arguments):
        return self.tuning(**arguments).fit(silent)


def silent(_event):
    pass


def f1_of_wrong(problem, scores):
    flagged = (scores.p_clean <= 0.5).numpy()
    return 2 * (flagged & problem.is_wrong).sum() / (flagged.sum() + problem.is_wrong.sum())


def assert_valid(scores, size, num_classes):
    assert scores.p_clean.shape == scores.predicted_labels.shape == (size,)
    assert torch.isfinite(scores.p_clean).all()
    assert ((scores.p_clean >= 0) & (scores.p_clean <= 1)).all()
    assert scores.predicted_labels.dtype == torch.int64
    assert ((scores.predicted_labels >= 0) & (scores.predicted_labels < num_classes)).all()
    assert scores.transition.shape == (num_classes, num_classes)
    np.testing.assert_allclose(scores.transition.sum(1), 1, rtol=1e-4)


@pytest.fixture(scope="module")
def problem():
    return Problem()


@pytest.fixture(scope="module")
def scores(problem):
    return problem.scores()


class TestFindsNoise:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_symmetric(self, seed):
        problem = Problem(seed=seed, spread=0.8)
        scores = problem.scores()
        assert_valid(scores, 600, 6)
        assert f1_of_wrong(problem, scores) > 0.95
        assert (scores.predicted_labels.numpy() == problem.truth).mean() > 0.95

    def test_estimates_how_much(self, problem, scores):
        true = problem.is_wrong.mean()
        assert 1 - float(scores.p_clean.mean()) == pytest.approx(true, abs=0.05)
        assert float(scores.transition.diagonal().mean()) == pytest.approx(1 - true, abs=0.05)

    def test_same_logits_at_another_scale(self):
        """Similarities a fifth as wide, five times the scale: the same classes are told apart, as well."""
        problem = Problem(spread=0.8)
        expected = problem.scores()
        share, rest = 0.2**0.5, 0.8**0.5
        zeros = np.zeros((600, 1))
        features = np.concatenate([share * problem.features.astype(float), rest + zeros, zeros], axis=1)
        encode = problem.backbone.encode_prompts

        def encode_narrow(tokens, context):
            zeros = torch.zeros(tokens.num_classes, 1)
            return torch.cat([share * encode(tokens, context), zeros, rest + zeros], dim=1)

        problem.backbone.encode_prompts = encode_narrow
        problem.backbone.logit_scale *= 5
        scores = problem.scores(features=features.astype(np.float16))
        assert (scores.predicted_labels.numpy() == problem.truth).mean() > 0.9
        assert f1_of_wrong(problem, scores) > f1_of_wrong(problem, expected) - 0.05

    def test_hardly_flags_clean_labels(self):
        scores = Problem(noise=0).scores()
        assert (scores.p_clean > 0.5).float().mean() > 0.98
        assert (scores.transition.diagonal() > 0.95).all()

    def test_text_that_says_nothing_is_made_up_for_by_the_residuals(self, problem):
        blind = Problem()
        blind.backbone.texts = torch.randn(6, DIM, generator=torch.Generator().manual_seed(3))
        assert f1_of_wrong(blind, blind.scores()) > 0.9

    def test_two_classes(self):
        pair = Problem(num_classes=2, noise=0.2, size=300)
        scores = pair.scores()
        assert_valid(scores, 300, 2)
        assert f1_of_wrong(pair, scores) > 0.9


class TestStep:
    def test_losses_and_the_gradient_of_the_text_against_a_loop(self, problem):
        """One step, with images, labels and folds one at a time; no step is made before the gradients are taken."""
        rows = np.stack([fold_rows[:7] for fold_rows in problem.tuning()._train_rows])
        tuning, plain = problem.tuning(), problem.tuning()
        text = tuning._prompts.encode().detach().requires_grad_()
        residual, _ = tuning._make_optimizers(steps=1, blocks=1)
        losses = tuning._step(rows, text, residual)

        again = text.detach().clone().requires_grad_()
        pseudo = plain._labels[rows]
        complement = complementary_labels(pseudo, 6, plain._generator)
        dp, sim = torch.zeros(()), torch.zeros(())
        scale = problem.backbone.logit_scale
        for fold, of_fold in enumerate(rows):
            for place, row in enumerate(of_fold):
                image = torch.from_numpy(problem.features[row]).float()
                positive = scale * F.normalize(again[POSITIVE], dim=-1) @ image
                background = symmetric_transition(6)
                margin = {
                    label: positive.detach()[label]
                    - background_logits(positive.detach(), background, torch.tensor(label))
                    - FrozenSettings().cone_sine * scale * again[NEGATIVE][label] @ image
                    for label in (int(pseudo[fold, place]), int(complement[fold, place]))
                }
                of_label, of_complement = margin.values()
                dp = dp - (F.logsigmoid(of_label) + F.logsigmoid(-of_complement)) / 7
                sim = sim - positive.log_softmax(0)[problem.labels[row]] / 7
        (dp + sim).backward()
        np.testing.assert_allclose(losses, torch.stack([dp, sim]).detach() / N_FOLDS, rtol=1e-4)
        np.testing.assert_allclose(text.grad, again.grad, atol=1e-4)


class TestInSample:
    def test_wrong_labels_that_were_learned_look_better(self):
        problem = Problem(size=60, spread=1.5)
        wrong = torch.from_numpy(problem.is_wrong)
        outside, inside = (problem.scores(is_out_of_sample=given) for given in (True, False))
        assert_valid(inside, 60, 6)
        assert inside.posterior[wrong].mean() > outside.posterior[wrong].mean() + 0.1

    def test_all_are_trained_on_once(self, problem):
        tuning = problem.tuning(is_out_of_sample=False)
        (rows,) = np.concatenate(tuning._deal_batches(steps=3), axis=1)
        assert sorted(rows) == list(range(600))


class TestReproducible:
    def test_same_seed_same_bits(self, problem, scores):
        again = problem.scores()
        assert torch.equal(again.p_clean, scores.p_clean)
        assert torch.equal(again.predicted_labels, scores.predicted_labels)
        assert torch.equal(again.transition, scores.transition)

    def test_another_seed_differs(self, problem, scores):
        assert not torch.equal(problem.scores(seed=1).p_clean, scores.p_clean)

    def test_global_random_state_does_not_matter_and_is_left_alone(self, problem, scores):
        torch.manual_seed(123)
        before = torch.get_rng_state()
        assert torch.equal(problem.scores().p_clean, scores.p_clean)
        assert torch.equal(torch.get_rng_state(), before)

    def test_memory_mapped_features(self, problem, scores, tmp_path):
        np.save(tmp_path / "features.npy", problem.features)
        mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
        assert torch.equal(problem.scores(features=mapped).p_clean, scores.p_clean)


class TestOutOfSample:
    def judged(self, problem, labels, **settings):
        """Logits of all examples after training on `labels`, in the folds of the problem."""
        tuning = problem.tuning(labels=labels, **settings)
        tuning.fit(silent)
        return tuning._judge()[0]

    def test_own_label_has_no_say(self, problem):
        """While all labels are taken as clean, nothing that a fold judges gets into its residuals, to the last bit.

        The contexts stand still here, as all folds share them. After warm-up labels of other folds are judged by
        prompts that saw this label, and are then learned from.
        """
        row = 5
        changed = problem.labels.copy()
        changed[row] = (changed[row] + 1) % problem.num_classes
        settings = {"epochs": 4, "warmup_epochs": 5, "context_learning_rate": 0.0}
        before, after = (self.judged(problem, labels, **settings) for labels in (problem.labels, changed))
        same_fold = problem.folds == problem.folds[row]
        assert torch.equal(before[same_fold], after[same_fold])
        # The test can fail: the folds that did train on it have noticed.
        assert not torch.equal(before[~same_fold], after[~same_fold])

    def test_shared_contexts_carry_no_single_label(self, problem):
        """Every label changed at once in one fold: the contexts tell that fold next to nothing of it."""
        changed, same_fold = problem.labels.copy(), problem.folds == 0
        changed[same_fold] = (changed[same_fold] + 1) % problem.num_classes
        settings = {"epochs": 4, "warmup_epochs": 5}
        before, after = (self.judged(problem, labels, **settings) for labels in (problem.labels, changed))
        moved = (before - after).abs().mean(1)
        assert moved[same_fold].mean() < 0.02 * moved[~same_fold].mean()

    def test_own_label_has_little_say_after_selection(self, problem):
        """It still comes in by a detour: through prompts that saw it, into what they say of their own fold's labels.

        That detour must stay narrow beside the straight way, by which the other folds learn the label itself.
        """
        everyone = np.arange(len(problem.labels))
        straight, detour = [], []
        for row in np.flatnonzero(problem.is_wrong)[:8]:
            wrong, right, fold = problem.labels[row], problem.truth[row], problem.folds[row]
            repaired = problem.labels.copy()
            repaired[row] = right
            lead = []  # of the wrong class before the right one, as each fold sees it: (2, F)
            for labels in (problem.labels, repaired):
                tuning = problem.tuning(labels=labels)
                tuning.fit(silent)
                images = tuning._images(everyone[row : row + 1]).expand(N_FOLDS, 1, DIM)
                logits = tuning._positive_logits(images, tuning._text[POSITIVE], tuning._residual)[:, 0]
                lead.append((logits[:, wrong] - logits[:, right]).detach().numpy())
            gain = lead[0] - lead[1]
            detour.append(gain[fold])
            straight.append(np.delete(gain, fold).mean())
        assert np.mean(straight) > 1
        assert np.mean(detour) < 0.4 * np.mean(straight)

    def test_random_labels_are_not_approved_of(self):
        """More dimensions than examples: any labels could be fitted, and then be predicted back."""
        generator = np.random.default_rng(0)
        nothing = Problem(size=200, num_classes=4, spread=1e3)
        nothing.labels = generator.integers(0, 4, 200)
        nothing.folds = deal_folds(nothing.labels, np.arange(200), N_FOLDS, seed=0)
        scores = nothing.scores()
        agreement = (scores.predicted_labels.numpy() == nothing.labels).mean()
        assert agreement < 0.4

    def test_each_example_is_judged_by_its_own_fold(self, problem):
        tuning = problem.tuning(epochs=2)
        tuning.fit(silent)
        logits, margins = tuning._judge()
        text, residual = tuning._text.detach().numpy(), tuning._residual.detach().numpy()
        transition = tuning._transition.numpy()
        for row in range(0, 600, 37):
            fold, image, label = problem.folds[row], problem.features[row].astype(np.float32), problem.labels[row]
            prototypes = text[POSITIVE] + residual[fold] / 20  # residuals are in units of logits
            prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
            expected = 1.5 * 20 * prototypes @ image
            np.testing.assert_allclose(logits[row], expected, rtol=1e-3, atol=1e-3)
            others = [math.exp(expected[j]) * transition[j, label] for j in range(6) if j != label]
            background = math.log(sum(others) / transition[label, label])
            margin = expected[label] - background - FrozenSettings().cone_sine * 20 * text[NEGATIVE, label] @ image
            assert float(margins[row]) == pytest.approx(margin, rel=1e-3, abs=1e-3)


class TestTraining:
    def test_dp_trains_the_negative_context_only(self, problem):
        """L_sim, and it alone, moves positive prompts and residuals."""
        tuning = problem.tuning(epochs=1, warmup_epochs=9)
        tuning._is_clean[:] = False  # so that L_sim is 0
        start = tuning._prompts.context.detach().clone()
        tuning.fit(silent)
        moved = (tuning._prompts.context.detach() - start).abs().amax((1, 2))
        assert moved[NEGATIVE] > 1e-4
        assert moved[POSITIVE] == 0
        assert (tuning._residual == 0).all()

    def test_both_contexts_and_the_residuals_are_trained(self, problem):
        tuning = problem.tuning(epochs=2)
        start = tuning._prompts.context.detach().clone()
        tuning.fit(silent)
        moved = (tuning._prompts.context.detach() - start).abs().amax((1, 2))
        assert (moved > 1e-4).all()
        assert (tuning._residual.abs().amax((1, 2)) > 0).all()

    def test_every_row_is_dealt_but_those_of_the_fold(self, problem):
        tuning = problem.tuning()
        batches = tuning._deal_batches(7)
        assert len(batches) == 7
        dealt = np.concatenate(batches, axis=1)
        for fold in range(N_FOLDS):
            assert len(set(dealt[fold].tolist())) == dealt.shape[1] == 450
            assert not (problem.folds[dealt[fold]] == fold).any()
        assert not np.array_equal(dealt, np.concatenate(tuning._deal_batches(7), axis=1))

    @pytest.mark.parametrize("updates", [1, 3, 10_000])
    def test_text_is_encoded_as_often_as_asked(self, updates):
        small = Problem(size=300)
        small.scores(epochs=2, text_updates_per_epoch=updates)
        steps = math.ceil(225 / 64)
        per_epoch = min(updates, steps)
        # At the start, then forward for gradients and forward for the new features at each update.
        assert small.backbone.encoded_prompts == 6 * 2 * (1 + 2 * 2 * per_epoch)

    def test_rejected_examples_are_learned_from_under_another_label(self, problem):
        tuning = problem.tuning(epochs=3)
        tuning.fit(silent)
        rejected = ~tuning._is_clean.numpy()
        pseudo = tuning._pseudo_labels.numpy()
        np.testing.assert_array_equal(pseudo[~rejected], problem.labels[~rejected])
        right = [(labels[rejected] == problem.truth[rejected]).mean() for labels in (pseudo, problem.labels)]
        assert right[0] > right[1] + 0.2

    def test_losses_fall(self, problem):
        events = []
        problem.tuning().fit(events.append)
        assert events[-1].losses["sim"] < events[1].losses["sim"]
        assert events[-1].losses["dp"] < events[0].losses["dp"]


class TestEvents:
    def test_what_the_listener_is_told(self, problem):
        events = []
        scores = problem.tuning(epochs=5, warmup_epochs=3).fit(events.append)
        assert [event.epoch for event in events] == [1, 2, 3, 4, 5]
        assert {event.num_epochs for event in events} == {5}
        assert [event.scalars["selected_fraction"] == 1 for event in events] == [True, True, False, False, False]
        assert events[-1].scalars["selected_fraction"] == pytest.approx(
            float((scores.p_clean > 0.5).float().mean()), abs=0.1
        )
        for event in events:
            assert set(event.losses) == {"dp", "sim"}
            assert all(math.isfinite(loss) and loss > 0 for loss in event.losses.values())
            assert event.examples_per_second > 0
        rates = [event.learning_rate for event in events]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0, abs=1e-6 * rates[0])
        # Cosine: half of (1 + cos(pi t)) after a share t of all steps.
        assert rates[1] == pytest.approx(
            FrozenSettings().residual_learning_rate / 2 * (1 + math.cos(math.pi * 0.4)), rel=1e-4
        )

    def test_an_error_in_the_listener_is_not_swallowed(self, problem):
        def stop(_event):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            problem.tuning().fit(stop)


class TestExtremes:
    def test_empty_class(self):
        problem = Problem(size=300)
        problem.labels[problem.labels == 4] = 0
        problem.folds = deal_folds(problem.labels, np.arange(300), N_FOLDS, seed=0)
        assert_valid(problem.scores(), 300, 6)

    def test_class_that_one_fold_never_sees(self):
        problem = Problem(size=300)
        problem.labels[problem.labels == 4] = 0
        problem.labels[0] = 4
        problem.folds = deal_folds(problem.labels, np.arange(300), N_FOLDS, seed=0)
        assert_valid(problem.scores(), 300, 6)

    def test_all_labels_rejected_after_warm_up(self, problem, monkeypatch):
        def reject(tuning):
            tuning._is_clean[:] = False

        monkeypatch.setattr(FrozenTuning, "_select", reject)
        events = []
        scores = problem.tuning(epochs=4, warmup_epochs=1).fit(events.append)
        assert_valid(scores, 600, 6)
        assert [event.losses["sim"] for event in events[1:]] == [0, 0, 0]
        assert [event.scalars["selected_fraction"] for event in events] == [0, 0, 0, 0]
        assert all(math.isfinite(event.losses["dp"]) for event in events)

    @pytest.mark.parametrize("size", [3, 8])
    def test_tiny(self, size):
        tiny = Problem(size=size, num_classes=2, noise=0.2)
        assert_valid(tiny.scores(epochs=3), size, 2)

    def test_fewer_examples_than_classes(self):
        few = Problem(size=8, num_classes=20)
        assert_valid(few.scores(epochs=3), 8, 20)

    def test_one_image_alone_in_another_fold(self):
        """Identical images share a fold, so folds may be of any size, or empty."""
        problem = Problem(size=40)
        folds = np.zeros(40, np.int64)
        folds[0] = 2
        assert_valid(problem.scores(folds=folds, epochs=2), 40, 6)
