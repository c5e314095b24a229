"""Every closed form, validation on, under `torch.func` and ``torch.compile(fullgraph=True)``."""

import pytest
import torch

from otkit import gaussian, linalg

generator = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def spd(*shape):
    X = normal(*shape, 2 * shape[-1])
    return X @ X.mT / (2 * shape[-1])


def uniform(K):
    return torch.full((4, K), 1 / K, dtype=torch.float64)


PAIR = (normal(4, 3), spd(4, 3), normal(4, 3), spd(4, 3))
MIXTURES = (uniform(2), normal(4, 2, 3), spd(4, 2, 3), uniform(3), normal(4, 3, 3), spd(4, 3, 3))
FORMS = {
    "sqrtm": (linalg.sqrtm, PAIR[1:2]),
    "inv_sqrtm": (linalg.inv_sqrtm, PAIR[1:2]),
    "polar": (linalg.polar, (normal(4, 3, 3),)),
    "w2_squared": (gaussian.w2_squared, PAIR),
    "w2": (gaussian.w2, PAIR),
    "w2_squared_from_factors": (gaussian.w2_squared_from_factors, PAIR),
    "trace": (lambda *gaussians: gaussian.w2_squared(*gaussians, method="trace"), PAIR),
    "w2_squared_diagonal": (gaussian.w2_squared_diagonal, (normal(4, 3), normal(4, 3).abs()) * 2),
    "transport_map": (gaussian.transport_map, PAIR),
    "geodesic": (lambda *gaussians: gaussian.geodesic(*gaussians, 0.3), PAIR),
    "barycenter": (gaussian.barycenter, (MIXTURES[1], MIXTURES[2], uniform(2))),
    "entropic_cost": (lambda *gaussians: gaussian.entropic_cost(*gaussians, reg=0.5), PAIR),
    "sinkhorn_divergence": (lambda *gaussians: gaussian.sinkhorn_divergence(*gaussians, reg=0.5), PAIR),
    "mixture_w2": (gaussian.mixture_w2, MIXTURES),
    "pairwise_w2_squared": (gaussian.pairwise_w2_squared, (*MIXTURES[1:3], *MIXTURES[4:])),
    "fit": (gaussian.fit, (normal(4, 9, 3),)),
    "frechet_distance": (gaussian.frechet_distance, (normal(4, 9, 3), normal(4, 2, 3))),
}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def scalar(function):
    def of(*arguments):
        results = function(*arguments)
        return sum(each.square().sum() for each in (results if isinstance(results, tuple) else (results,)))

    return of


def differentiated(function, arguments):
    inputs = [t.clone().requires_grad_() for t in arguments]
    value = function(*inputs)
    return value, torch.autograd.grad(value, inputs)


def test_vmap_of_values_and_gradients(form):
    function, arguments = form
    torch.testing.assert_close(torch.func.vmap(function)(*arguments), function(*arguments))
    _, expected = differentiated(scalar(function), arguments)
    every = tuple(range(len(arguments)))
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(scalar(function), every))(*arguments), expected)


@pytest.mark.filterwarnings("default")  # torch traces with functions that it deprecates
def test_compiles_without_graph_breaks(form):
    function, arguments = form
    torch.compiler.reset()
    compiled = torch.compile(scalar(function), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(differentiated(compiled, arguments), differentiated(scalar(function), arguments))


@pytest.mark.filterwarnings("default")  # torch's forward mode uses what it deprecates
def test_forward_mode_says_what_to_do_instead(form):
    function, arguments = form
    with pytest.raises(NotImplementedError, match=r"instead of torch.func.hessian\(f\), take torch.func.jacrev"):
        torch.func.jvp(scalar(function), arguments, arguments)


@pytest.mark.parametrize("name", ["sqrtm", "transport_map", "geodesic", "barycenter", "entropic_cost", "mixture_w2"])
def test_validation_survives(name):
    function, arguments = FORMS[name]
    bad = [-t if t.shape[-1] == t.shape[-2] and t.ndim > 2 else t for t in arguments]
    with pytest.raises(ValueError, match="must be positive semidefinite"):
        torch.func.vmap(function)(*bad)


def test_first_derivatives_at_singular_covariances_are_not_taken_for_second_ones():
    C = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    zero, eye = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for function in (
        lambda C: gaussian.transport_map(zero, eye, zero, C)[0],
        lambda C: FORMS["geodesic"][0](zero, C, zero, eye)[1],
    ):
        assert torch.isfinite(torch.func.grad(lambda C, f=function: f(C).sum())(C)).all()
