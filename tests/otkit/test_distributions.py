import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

import otkit
from otkit import distributions, gaussian

torch.manual_seed(0)
d = 3
f64 = {"dtype": torch.float64}


def full(*batch):
    X = torch.randn(*batch, d, 2 * d, **f64)
    return MultivariateNormal(torch.randn(*batch, d, **f64), X @ X.mT)


def low_rank(*batch):
    return LowRankMultivariateNormal(
        torch.randn(*batch, d, **f64), torch.randn(*batch, d, 2, **f64), torch.rand(*batch, d, **f64)
    )


def diagonal(*batch):
    return Independent(Normal(torch.randn(*batch, d, **f64), torch.rand(*batch, d, **f64)), 1)


MAKERS = {"full": full, "low_rank": low_rank, "diagonal": diagonal}


def cov(distribution):
    return (
        distribution.variance.diag_embed() if isinstance(distribution, Independent) else distribution.covariance_matrix
    )


@pytest.mark.parametrize("first", MAKERS)
@pytest.mark.parametrize("second", MAKERS)
def test_every_pair_of_gaussians_against_covariances(first, second):
    p, q = MAKERS[first](4, 1), MAKERS[second](5)
    expected = gaussian.w2_squared(p.mean, cov(p), q.mean, cov(q))
    torch.testing.assert_close(distributions.w2_squared(p, q), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(otkit.wasserstein(q, p), expected.sqrt(), rtol=1e-9, atol=1e-9)


def test_normal_keeps_its_batch():
    p, q = Normal(torch.zeros(2, 1), 1.0), Normal(torch.tensor([0.0, 3.0, 6.0]), torch.tensor([1.0, 5.0, 9.0]))
    torch.testing.assert_close(distributions.w2_squared(p, q), torch.tensor([0.0, 25.0, 100.0]).expand(2, 3))


def test_products_add_up_whatever_the_parts():
    locs = torch.randn(2, 4, d, **f64)
    base = [MultivariateNormal(loc, torch.eye(d, **f64)) for loc in locs]
    p, q = (Independent(part, 1) for part in base)
    torch.testing.assert_close(distributions.w2_squared(p, q), distributions.w2_squared(*base).sum())
    images = [Independent(Normal(loc, 1.0), 2) for loc in locs]
    torch.testing.assert_close(distributions.w2_squared(*images), (locs[0] - locs[1]).square().sum())


def test_diracs():
    point = [
        Independent(Normal(loc, torch.zeros(2, **f64), validate_args=False), 1)
        for loc in torch.tensor([[0.0, 0.0], [3.0, 4.0]], **f64)
    ]
    assert otkit.wasserstein(*point).item() == 5
    flat = LowRankMultivariateNormal(
        torch.zeros(2, **f64), torch.ones(2, 1, **f64), torch.zeros(2, **f64), validate_args=False
    )
    assert distributions.w2_squared(flat, point[0]).item() == pytest.approx(2)


def test_gradients_reach_the_parameters():
    loc, scale = torch.zeros(d, **f64).requires_grad_(), torch.ones(d, **f64).requires_grad_()
    otkit.wasserstein(Independent(Normal(loc, scale), 1), full()).backward()
    assert loc.grad.abs().sum() > 0
    assert scale.grad.abs().sum() > 0
    tril = torch.linalg.cholesky(cov(full())).requires_grad_()
    q = full()
    assert torch.autograd.gradcheck(
        lambda tril: distributions.w2(
            MultivariateNormal(torch.zeros(d, **f64), scale_tril=tril.tril(), validate_args=False), q
        ),
        tril,
    )


@pytest.mark.parametrize("first", MAKERS)
@pytest.mark.parametrize("second", MAKERS)
def test_derivatives_in_all_parameters(first, second):
    of = {
        "diagonal": lambda loc, factor: Independent(Normal(loc, factor.diagonal(), validate_args=False), 1),
        "full": lambda loc, factor: MultivariateNormal(loc, scale_tril=factor.tril(), validate_args=False),
        "low_rank": lambda loc, factor: LowRankMultivariateNormal(
            loc, factor[:, :2], factor.diagonal().square(), validate_args=False
        ),
    }

    def squared(loc1, factor1, loc2, factor2):
        return distributions.w2_squared(of[first](loc1, factor1), of[second](loc2, factor2))

    parameters = [t for _ in "pq" for t in (torch.randn(d, **f64), torch.eye(d, **f64) + torch.rand(d, d, **f64))]
    parameters = [t.requires_grad_() for t in parameters]
    assert torch.autograd.gradcheck(squared, parameters)
    assert torch.autograd.gradgradcheck(squared, parameters)


@pytest.mark.parametrize("first", MAKERS)
@pytest.mark.parametrize("second", MAKERS)
def test_an_error_says_which_of_the_two_is_meant(first, second):
    p, q = MAKERS[first](), MAKERS[second]()
    mean = p.base_dist.loc if isinstance(p, Independent) else p.loc
    mean[..., 0] = torch.inf
    with pytest.raises(ValueError, match="loc1 must be finite"):
        distributions.w2_squared(p, q)


def test_equal_distributions_have_distance_and_gradient_zero():
    loc = torch.zeros(d, **f64).requires_grad_()
    value = otkit.wasserstein(
        MultivariateNormal(loc, torch.eye(d, **f64)), MultivariateNormal(torch.zeros(d, **f64), torch.eye(d, **f64))
    )
    value.backward()
    assert value.item() == 0
    assert not loc.grad.any()


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(distributions, "_FORMS", dict(distributions._FORMS))


@pytest.mark.usefixtures("registry")
def test_the_most_specific_form_is_taken_and_a_tie_is_warned_of():
    class Mine(Normal):
        pass

    p, q = Mine(0.0, 1.0), Normal(1.0, 1.0)
    assert distributions.w2_squared(p, q) == 1

    @distributions.register_w2_squared(Mine, Normal)
    def _(p, q):
        return torch.tensor(7.0)

    assert distributions.w2_squared(p, q) == 7
    assert distributions.w2_squared(q, p) == 7
    assert distributions.w2_squared(q, q) == 0

    @distributions.register_w2_squared(Normal, Mine)
    def _(p, q):
        return torch.tensor(8.0)

    assert distributions.w2_squared(q, p) == 8
    assert distributions.w2_squared(p, q) == 7
    with pytest.warns(RuntimeWarning, match=r"ambiguous.*register_w2_squared\(Mine, Mine\) breaks the tie"):
        distributions.w2_squared(p, p)


@pytest.mark.usefixtures("registry")
def test_a_form_gets_its_types_in_the_order_registered():
    distributions.register_w2_squared(Categorical, Normal)(lambda p, q: p.logits.sum() + q.loc)
    p, q = Categorical(logits=torch.zeros(2)), Normal(3.0, 1.0)
    assert distributions.w2_squared(q, p) == distributions.w2_squared(p, q)


@pytest.mark.usefixtures("registry")
def test_more_specific_in_one_and_less_in_the_other_is_a_tie_however_far():
    class Mine(Normal):
        pass

    class Yours(Mine):
        pass

    for types, number in (((Yours, Normal), 1.0), ((Normal, Mine), 2.0)):
        distributions.register_w2_squared(*types)(lambda p, q, number=number: torch.tensor(number))
    with pytest.warns(RuntimeWarning, match=r"\(Yours, Normal\) and \(Normal, Mine\) fit equally well") as record:
        distributions.w2_squared(Yours(0.0, 1.0), Mine(0.0, 1.0))
    assert record[0].filename == __file__
    distributions.register_w2_squared(Yours, Mine)(lambda p, q: torch.tensor(3.0))
    assert distributions.w2_squared(Yours(0.0, 1.0), Mine(0.0, 1.0)) == 3


def test_independent_of_nothing_and_within_another():
    p, q = Normal(torch.zeros(2, d, **f64), 1.0), full(2)
    whole = distributions.w2_squared(Independent(p, 1), q)
    torch.testing.assert_close(distributions.w2_squared(Independent(Independent(p, 1), 0), Independent(q, 0)), whole)
    torch.testing.assert_close(distributions.w2_squared(Independent(p, 0), p), torch.zeros(2, d, **f64))
    both = distributions.w2_squared(Independent(Independent(p, 1), 1), Independent(q, 1))
    torch.testing.assert_close(both, whole.sum())


@pytest.mark.parametrize(("dtype", "far"), [(torch.float16, 300.0), (torch.float32, 1e25), (torch.float32, 1e-25)])
def test_the_root_is_taken_before_what_the_dtype_cannot_hold(dtype, far):
    loc, scale = torch.tensor([0.0, far], dtype=dtype), torch.ones((), dtype=dtype)
    value = otkit.wasserstein(Normal(loc[0], scale), Normal(loc[1], scale))
    assert value.dtype == dtype
    assert value == loc[1]


def test_scales_of_near_low_rank_normals_are_not_rounded_to_the_dtype():
    """W2² is (√a - √b)², with a - b the last bit of a float32."""
    zero, a, b = torch.zeros(1), torch.tensor([2.0]), torch.tensor([2.0000002])
    p, q = (LowRankMultivariateNormal(zero, zero[None], diag) for diag in (a, b))
    exact = ((b.double() - a.double()) / (b.double().sqrt() + a.double().sqrt())) ** 2
    torch.testing.assert_close(distributions.w2_squared(p, q), exact[0].float(), rtol=1e-6, atol=0)


def test_bad_input():
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.zeros(2), torch.ones(2)))
    with pytest.raises(NotImplementedError, match="p of type MixtureSameFamily and q of type Normal"):
        otkit.wasserstein(mixture, Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=r"q has event shape \(3,\) but p has \(\)"):
        otkit.wasserstein(Normal(0.0, 1.0), full())
    with pytest.raises(TypeError, match="q is a Tensor; expected a torch distribution"):
        otkit.wasserstein(Normal(0.0, 1.0), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="p is 1; between torch distributions only W_2"):
        otkit.wasserstein(Normal(0.0, 1.0), Normal(0.0, 1.0), p=1)
    with pytest.raises(TypeError, match="a: an option for sets of points"):
        otkit.wasserstein(Normal(0.0, 1.0), Normal(0.0, 1.0), a=None)
    with pytest.raises(ValueError, match=r"batch shapes do not broadcast; got p: \(2,\), q: \(3,\)"):
        otkit.wasserstein(full(2), full(3))
    with pytest.raises(TypeError, match=r"q has dtype torch.float64 but p has dtype torch.float32"):
        otkit.wasserstein(Independent(Normal(torch.zeros(d), 1.0), 1), full())
    zero, loose = torch.zeros(d, **f64), {"validate_args": False}
    negative = torch.tensor([1.0, -1.0, 1.0], **f64)
    with pytest.raises(ValueError, match="cov_diag must not be negative; got -1"):
        otkit.wasserstein(LowRankMultivariateNormal(zero, 0.5 * torch.eye(d, **f64), negative, **loose), full())
    with pytest.raises(ValueError, match="scale must not be negative; got -1"):
        otkit.wasserstein(full(), Independent(Normal(zero, negative, **loose), 1))
    with pytest.raises(TypeError, match="type_q is 3"):
        distributions.register_w2_squared(Normal, 3)
