"""What metrics refuse: the number that they need is in the sentence."""

import pytest
import torch

from selftrans.evaluation.checks import require_neighbours


@pytest.mark.parametrize("k", [1, 3, 5])
def test_k_neighbours_are_among_k_plus_one_rows(k):
    require_neighbours(torch.zeros(k + 1, 2), "sample features", k)
    for rows in range(k + 1):
        with pytest.raises(ValueError, match=rf"sample features: .* needs at least k\+1 = {k + 1} rows, got {rows}"):
            require_neighbours(torch.zeros(rows, 2), "sample features", k)
