"""Loss and gradients against PyTorch's autograd, which shares nothing with this package.

Needs the extra `peers`; the second stage of `.ci/run` has it.
"""

import importlib.util
from math import sqrt

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.notation import POSITIONS
from tests.draws import random_case

pytestmark = pytest.mark.extra
torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def torch_loss(W, positions, tokens):
    """The model once more, in torch."""
    x = W["W_E"].T[tokens]
    p = W["W_pos"].T[:tokens.shape[1]] if "W_pos" in W else 0
    if positions == "standard":
        x, p = x + p, 0
    mask = torch.tril(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool))
    for W_Q, W_K, W_V, W_O in zip(W["W_Q"], W["W_K"], W["W_V"], W["W_O"]):
        q = torch.einsum("hed,bid->bhie", W_Q, x + p)
        k = torch.einsum("hed,bid->bhie", W_K, x + p)
        v = torch.einsum("hed,bid->bhie", W_V, x)
        scores = torch.einsum("bhie,bhje->bhij", q, k) / sqrt(W_Q.shape[1])
        pattern = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        x = x + torch.einsum("hde,bhij,bhje->bid", W_O, pattern, v)
    logits = torch.einsum("vd,bid->biv", W["W_U"], x)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1),
                                             tokens[:, 1:].flatten())


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_loss_and_gradients_equal_autograd(positions, n_layers):
    weights, tokens = random_case(n_layers, n_layers=n_layers, positions=positions)
    W = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    theirs = torch_loss(W, positions, torch.tensor(tokens))
    theirs.backward()
    loss, gradients = mc.loss_and_gradients(weights, tokens)
    assert abs(loss - theirs.item()) <= 1e-12 * abs(loss)
    for name, gradient in gradients.items():
        if gradient.size:
            dW = W[name].grad if W[name].grad is not None else torch.zeros_like(W[name])
            assert mc.relative_error(gradient, dW.numpy()) <= 1e-11, name


def test_a_state_dict_of_tensors_is_read():
    weights, _ = random_case(0)
    state = {name: torch.tensor(np.ascontiguousarray(array))
             for name, array in mc.to_transformer_lens(weights).items()}
    back = mc.from_transformer_lens(state, positions=weights.positions)
    assert all(np.array_equal(W, getattr(back, name)) for name, W in weights.items())
