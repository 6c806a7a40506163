"""The networks by themselves: what may and what may not make a difference to them."""

import pytest
import torch

from sam2vss.classifiers.heads import AttentionPool, ContextHead, PlainHead


def make(head: str, num_inputs: int = 6) -> torch.nn.Module:
    torch.manual_seed(0)
    if head == "context":
        return ContextHead(num_inputs, 5, hidden=8, dropout=0.5).eval()
    return PlainHead(num_inputs, 5, hidden=8 if head == "mlp" else 0, dropout=0.5).eval()


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(1)
        yield


@pytest.mark.parametrize("head", ["linear", "mlp", "context"])
def test_permuted_rows_are_named_alike(head):
    network, rows, groups = make(head), torch.randn(9, 6), torch.tensor([0, 2, 2, 0, 1, 2, 0, 0, 2])
    order = torch.randperm(9)
    torch.testing.assert_close(network(rows[order], groups[order]), network(rows, groups)[order], rtol=0, atol=1e-5)


def test_a_longer_group_in_the_batch_makes_no_difference_to_the_others():
    """Measured: 2e-7."""
    network = make("context")
    short, long, single = torch.randn(3, 6), 100 * torch.randn(11, 6), torch.randn(1, 6)
    rows = torch.cat([short[:2], long, single, short[2:]])
    groups = torch.tensor([4] * 2 + [7] * 11 + [9] + [4])
    together = network(rows, groups)
    for part, number in ((short, 4), (long, 7), (single, 9)):
        alone = network(part, torch.zeros(len(part), dtype=torch.long))
        torch.testing.assert_close(together[groups == number], alone, rtol=0, atol=1e-5)


def test_only_the_context_head_looks_at_neighbours():
    rows, groups = torch.randn(4, 6), torch.tensor([0, 0, 0, 1])
    other = rows.clone()
    other[2] += 1
    for head in ("linear", "mlp", "context"):
        network = make(head)
        change = (network(other, groups) - network(rows, groups)).abs().amax(dim=1)
        assert bool(change[0] > 1e-4) == (head == "context")
        assert change[2] > 1e-4
        assert change[3] < 1e-6  # of another group


def test_the_linear_head_is_one_matrix():
    network, rows = make("linear"), torch.randn(3, 6)
    (layer,) = network.layers
    torch.testing.assert_close(network(rows, torch.zeros(3)), rows @ layer.weight.T + layer.bias)


def test_attention_pooling_does_not_care_about_the_order_of_cells_and_weighs_them():
    pool = AttentionPool(8).eval()
    tokens = torch.randn(3, 5, 8)
    pooled = pool(tokens)
    assert pooled.shape == (3, 8)
    torch.testing.assert_close(pool(tokens[:, torch.randperm(5)]), pooled, rtol=0, atol=1e-6)
    torch.testing.assert_close(pool(tokens.repeat_interleave(2, dim=1)), pooled, rtol=0, atol=1e-6)
    normed = pool.norm(tokens)
    weights = pool.score(normed).softmax(dim=1)
    for head in range(4):  # two channels each
        values = pool.value(normed)[..., 2 * head : 2 * head + 2]
        expected = sum(weights[:, s, head, None] * values[:, s] for s in range(5))
        torch.testing.assert_close(pooled[:, 2 * head : 2 * head + 2], expected)
