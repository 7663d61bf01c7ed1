"""Each function of the method against loops over numbers, or a closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deft_plugin.deft import losses, verdicts
from deft_plugin.deft import transition as transitions

logits = st.floats(-80, 80, width=32)


def matrices(rows, columns, seed, scale=1.0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale


def random_transition(num_classes, seed):
    rows = torch.rand(num_classes, num_classes, generator=torch.Generator().manual_seed(seed)) + 0.01
    return rows / rows.sum(1, keepdim=True)


class TestCleanProbability:
    @given(st.lists(st.tuples(logits, logits), min_size=1, max_size=5))
    def test_is_the_softmax_of_the_pair(self, pairs):
        positive, negative = torch.tensor(pairs).T
        p_clean = verdicts.clean_probability(positive - negative)
        expected = [math.exp(p - max(p, n)) / (math.exp(p - max(p, n)) + math.exp(n - max(p, n))) for p, n in pairs]
        np.testing.assert_allclose(p_clean, expected, rtol=1e-3, atol=1e-6)
        assert ((p_clean >= 0) & (p_clean <= 1)).all()

    def test_no_overflow(self):
        p_clean = verdicts.clean_probability(torch.tensor([2e4, -2e4]))
        assert p_clean.tolist() == [1.0, 0.0]


class TestIsClean:
    @given(logits, logits)
    def test_agrees_with_p_clean(self, positive, negative):
        margin = torch.tensor(positive) - torch.tensor(negative)
        assert bool(verdicts.is_clean(margin)) is (positive > negative)
        assert bool(verdicts.clean_probability(margin) > 0.5) is bool(verdicts.is_clean(margin))

    @given(logits)
    def test_a_tie_is_an_issue(self, logit):
        margin = torch.tensor(logit) - torch.tensor(logit)
        assert not verdicts.is_clean(margin)
        assert not verdicts.clean_probability(margin) > 0.5

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_margins_that_the_sigmoid_rounds_away(self, dtype):
        """The sigmoid of 1e-20 is 1/2: by itself it would call a label a tie that is closer to its positive prompt."""
        margins = torch.tensor([1e-20, 0.0, -1e-20], dtype=dtype)
        assert (torch.sigmoid(margins) == 0.5).all()
        assert (verdicts.clean_probability(margins) > 0.5).tolist() == verdicts.is_clean(margins).tolist()
        assert verdicts.is_clean(margins).tolist() == [True, False, False]


def test_pseudo_labels_against_a_loop():
    positive = matrices(50, 4, seed=0)
    labels = torch.arange(50) % 4
    is_clean = torch.arange(50) % 3 == 0
    expected = [
        int(label) if clean else int(np.argmax(row))
        for label, clean, row in zip(labels, is_clean, positive.numpy(), strict=True)
    ]
    assert losses.pseudo_labels(labels, is_clean, positive).tolist() == expected
    assert expected != labels.tolist()


class TestComplementaryLabels:
    @given(st.integers(2, 9), st.integers(0, 2**31))
    def test_never_the_label_itself(self, num_classes, seed):
        labels = torch.arange(200).reshape(4, 50) % num_classes
        drawn = losses.complementary_labels(labels, num_classes, torch.Generator().manual_seed(seed))
        assert drawn.shape == labels.shape
        assert drawn.dtype == torch.int64
        assert (drawn != labels).all()
        assert ((drawn >= 0) & (drawn < num_classes)).all()

    def test_all_others_equally_often(self):
        labels = torch.full((60_000,), 3)
        drawn = losses.complementary_labels(labels, 7, torch.Generator().manual_seed(0))
        share = np.bincount(drawn, minlength=7) / len(labels)
        np.testing.assert_allclose(share, [1 / 6, 1 / 6, 1 / 6, 0, 1 / 6, 1 / 6, 1 / 6], atol=0.006)

    def test_drawn_afresh_at_each_call(self):
        generator = torch.Generator().manual_seed(0)
        labels = torch.zeros(100, dtype=torch.int64)
        first, second = (losses.complementary_labels(labels, 10, generator) for _ in range(2))
        assert not torch.equal(first, second)


class TestDpLoss:
    @given(logits, logits)
    def test_is_the_two_log_likelihoods(self, of_label, of_complement):
        loss = float(losses.dp_loss(torch.tensor(of_label), torch.tensor(of_complement)))
        # log(1 + exp(x)), once for each side
        expected = np.logaddexp(0, -of_label) + np.logaddexp(0, of_complement)
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert loss >= 0

    def test_stays_finite_where_p_clean_is_0(self):
        of_label = torch.tensor([-1e4], requires_grad=True)
        losses.dp_loss(of_label, torch.tensor([1e4])).sum().backward()
        assert of_label.grad.tolist() == [-1.0]

    def test_detached_positive_side_learns_nothing(self):
        positive = matrices(6, 4, seed=1).requires_grad_()
        negative = matrices(6, 4, seed=2).requires_grad_()
        labels, complement = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 2, 3, 0, 2, 3])
        rows = torch.arange(6)
        margins = [positive.detach()[rows, of] - negative[rows, of] for of in (labels, complement)]
        losses.dp_loss(*margins).sum().backward()
        assert positive.grad is None
        # The label's negative prompt is pushed away, that of the complement is pulled closer.
        assert (negative.grad[rows, labels] > 0).all()
        assert (negative.grad[rows, complement] < 0).all()
        expected = torch.sigmoid(negative - positive).detach()[rows, labels]
        torch.testing.assert_close(negative.grad[rows, labels], expected)


class TestSimLoss:
    def test_against_a_loop(self):
        positive = matrices(24, 5, seed=3, scale=4).reshape(2, 12, 5)
        labels = torch.arange(24).reshape(2, 12) % 5
        is_clean = (torch.arange(24) % 3 != 0).reshape(2, 12)
        expected = []
        for fold in range(2):
            of_fold = []
            for row in range(12):
                if is_clean[fold, row]:
                    scores = [float(x) for x in positive[fold, row]]
                    total = sum(math.exp(x) for x in scores)
                    of_fold.append(-math.log(math.exp(scores[int(labels[fold, row])]) / total))
            expected.append(sum(of_fold) / len(of_fold))
        assert losses.sim_loss(positive, labels, is_clean).tolist() == pytest.approx(expected, rel=1e-5)

    def test_rejected_examples_have_no_gradient(self):
        positive = matrices(6, 3, seed=4).requires_grad_()
        is_clean = torch.tensor([True, False, True, False, False, True])
        losses.sim_loss(positive, torch.tensor([0, 1, 2, 0, 1, 2]), is_clean).backward()
        assert (positive.grad[~is_clean] == 0).all()
        assert (positive.grad[is_clean] != 0).all()

    def test_none_selected(self):
        positive = matrices(6, 3, seed=5).reshape(2, 3, 3).requires_grad_()
        is_clean = torch.tensor([[False, False, False], [True, False, False]])
        loss = losses.sim_loss(positive, torch.zeros(2, 3, dtype=torch.int64), is_clean)
        assert loss[0] == 0
        assert loss[1] > 0
        loss.sum().backward()
        assert (positive.grad[0] == 0).all()
        assert torch.isfinite(positive.grad).all()


class TestBackgroundLogits:
    @settings(max_examples=50)
    @given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 1000))
    def test_against_a_loop(self, num_classes, num_examples, seed):
        positive = matrices(num_examples, num_classes, seed, scale=3)
        transition = random_transition(num_classes, seed)
        labels = torch.arange(num_examples) % num_classes
        expected = []
        for row in range(num_examples):
            label = int(labels[row])
            others = sum(
                math.exp(float(positive[row, j])) * float(transition[j, label])
                for j in range(num_classes)
                if j != label
            )
            expected.append(math.log(others) - math.log(float(transition[label, label])))
        result = verdicts.background_logits(positive, transition, labels)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)

    def test_margin_is_the_posterior_odds_of_a_right_label(self):
        positive = matrices(40, 4, seed=6, scale=2)
        transition = random_transition(4, 7)
        labels = torch.arange(40) % 4
        joint = positive.softmax(-1).numpy() * transition.numpy().T[labels]  # p(true j, given y)
        p_right = joint[np.arange(40), labels] / joint.sum(1)
        margin = positive[torch.arange(40), labels] - verdicts.background_logits(positive, transition, labels)
        np.testing.assert_allclose(torch.sigmoid(margin), p_right, rtol=1e-4)

    def test_leading_axes(self):
        positive, labels = matrices(12, 3, seed=8).reshape(2, 6, 3), torch.arange(12).reshape(2, 6) % 3
        transition = random_transition(3, 9)
        flat = verdicts.background_logits(positive.reshape(12, 3), transition, labels.reshape(12))
        torch.testing.assert_close(verdicts.background_logits(positive, transition, labels), flat.reshape(2, 6))

    def test_impossible_transitions_stay_finite(self):
        result = verdicts.background_logits(matrices(3, 3, seed=0), torch.eye(3), torch.arange(3))
        assert torch.isfinite(result).all()
        assert (result < -20).all()


class TestSymmetricTransition:
    @given(st.integers(1, 20), st.floats(0, 1))
    def test_closed_form(self, num_classes, noise_ratio):
        transition = transitions.symmetric_transition(num_classes, noise_ratio).numpy()
        np.testing.assert_allclose(transition.sum(1), 1, rtol=1e-5)
        off_diagonal = transition[~np.eye(num_classes, dtype=bool)]
        np.testing.assert_allclose(off_diagonal, noise_ratio / num_classes, rtol=1e-5, atol=1e-7)


def noisy_labels(transition, truth, seed):
    generator = np.random.default_rng(seed)
    return torch.tensor([generator.choice(len(transition), p=transition[label]) for label in truth])


def estimate(truth, labels, num_classes, confidence=12.0, **settings):
    """Estimate from well separated posteriors."""
    positive = confidence * torch.nn.functional.one_hot(torch.tensor(truth), num_classes).float()
    start = transitions.symmetric_transition(num_classes)
    return transitions.estimate_transition(positive, labels, start, **{"smoothing": 3.0, "steps": 20, **settings})


class TestEstimateTransition:
    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(2, 6), st.integers(1, 60), st.floats(0, 10), st.integers(0, 1000), st.sampled_from([1e-3, 1, 20.0])
    )
    @example(5, 2, 1.0, 5, 20.0)  # all wrong: rounding must not end below 0
    def test_is_a_transition(self, num_classes, num_examples, scale, seed, smoothing):
        positive = matrices(num_examples, num_classes, seed, scale)
        labels = torch.arange(num_examples) % max(1, num_classes - 1)  # one class has no label
        start = transitions.symmetric_transition(num_classes)
        transition = transitions.estimate_transition(positive, labels, start, smoothing=smoothing, steps=20)
        assert transition.shape == (num_classes, num_classes)
        assert ((transition >= 0) & (transition <= 1 + 1e-5)).all()
        np.testing.assert_allclose(transition.sum(1), 1, rtol=1e-4)

    def test_recovers_noise_that_depends_on_the_class(self):
        true = np.array([[0.9, 0.1, 0, 0], [0, 0.6, 0.4, 0], [0.2, 0, 0.5, 0.3], [0, 0, 0, 1]])
        truth = np.repeat(np.arange(4), 2000)
        transition = estimate(truth, noisy_labels(true, truth, seed=0), 4)
        np.testing.assert_allclose(transition, true, atol=0.04)

    def test_symmetric_noise_stays_near_uniform(self):
        true = transitions.symmetric_transition(10, 0.4).double().numpy()
        truth = np.repeat(np.arange(10), 400)
        transition = estimate(truth, noisy_labels(true / true.sum(1, keepdims=True), truth, seed=0), 10).numpy()
        np.testing.assert_allclose(transition.diagonal(), 0.64, atol=0.07)
        off_diagonal = transition[~np.eye(10, dtype=bool)]
        np.testing.assert_allclose(off_diagonal, 0.04, atol=0.03)

    def test_clean_labels(self):
        truth = np.repeat(np.arange(5), 100)
        transition = estimate(truth, torch.tensor(truth), 5)
        assert (transition.diagonal() > 0.98).all()

    def test_one_round_against_a_loop(self):
        positive, labels = matrices(30, 3, seed=0, scale=2), torch.arange(30) % 3
        start = random_transition(3, 1)
        posterior = positive.softmax(-1).double().numpy()
        counts = np.zeros((3, 3))
        for row in range(30):
            given_label = int(labels[row])
            weights = [posterior[row, j] * float(start[j, given_label]) for j in range(3)]
            for j in range(3):
                counts[j, given_label] += weights[j] / sum(weights)
        expected = np.zeros((3, 3))
        all_wrong = sum(counts[j, k] for j in range(3) for k in range(3) if j != k) / 30
        smoothing = 2.0
        for j in range(3):
            moved = sum(counts[j, k] for k in range(3) if k != j)
            ratio = (moved + smoothing * all_wrong) / (counts[j].sum() + smoothing)
            expected[j, j] = 1 - ratio
            for k in range(3):
                if k != j:
                    expected[j, k] = ratio * (counts[j, k] + smoothing) / (moved + smoothing * 2)
        result = transitions.estimate_transition(positive, labels, start, smoothing=smoothing, steps=1)
        np.testing.assert_allclose(result, expected, rtol=1e-4)

    def test_a_class_without_examples_takes_the_overall_ratio(self):
        true = transitions.symmetric_transition(4, 0.4).double().numpy()
        truth = np.repeat(np.arange(3), 500)
        labels = noisy_labels(true / true.sum(1, keepdims=True), truth, seed=0)
        transition = estimate(truth, labels, 4)
        assert float(transition[3, 3]) == pytest.approx(0.7, abs=0.05)
        np.testing.assert_allclose(transition[3, :3], (1 - float(transition[3, 3])) / 3, rtol=0.1)

    def test_does_not_change_its_arguments(self):
        positive, labels, start = matrices(10, 3, seed=0), torch.arange(10) % 3, random_transition(3, 0)
        copies = [tensor.clone() for tensor in (positive, labels, start)]
        transitions.estimate_transition(positive, labels, start, smoothing=3.0, steps=20)
        for tensor, copy in zip((positive, labels, start), copies, strict=True):
            assert torch.equal(tensor, copy)
