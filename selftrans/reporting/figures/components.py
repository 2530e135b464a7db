"""Principal components of tokens as colours.

Only differences between images are looked at: the mean over images is taken from each place of the token grid, where
the embedding of positions would otherwise be most of what is seen.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# What the components become, the first as lightness: told apart with any kind of colour vision, and in grey.
LIGHTNESS, YELLOW_BLUE, RED_GREEN = (0.18, 0.18, 0.18), (0.1, 0.1, -0.2), (0.12, -0.12, 0.0)


def components(panels: "Sequence[np.ndarray]", images: "np.ndarray") -> "list[np.ndarray]":
    """The first three components (N, T, 3) of each panel's tokens (N, T, D), fitted to all panels together.

    Each panel has variance 1 for that, and each component has variance 1 over all of them. Signs are such that a
    component grows with the brightness of ``images`` (N, 3, H, W) under a token: whatever basis the features have, the
    colours are the same.
    """
    import numpy as np
    from sklearn.decomposition import PCA

    scaled = [centred / np.sqrt(np.square(centred).mean()) for centred in (x - x.mean(axis=0) for x in panels)]
    fitted = PCA(3, svd_solver="full").fit(np.concatenate([x.reshape(-1, x.shape[-1]) for x in scaled]))
    found = [x @ fitted.components_.T for x in scaled]  # (N, T, 3)
    bright = brightness(images, tokens=panels[0].shape[1])
    growth = sum(np.einsum("nt,ntc->c", bright, x) for x in found)
    signs = np.where(growth < 0, -1, 1)
    spread = np.sqrt(np.mean([np.square(x) for x in found], axis=(0, 1, 2)))
    return [x * signs / spread for x in found]


def brightness(images: "np.ndarray", tokens: int) -> "np.ndarray":
    """Mean grey level (N, T) under each token, from its mean over images at that place."""
    grid = round(tokens**0.5)
    count, _, height, width = images.shape
    patches = images.astype(float).reshape(count, 3, grid, height // grid, grid, width // grid)
    found = patches.mean(axis=(1, 3, 5)).reshape(count, tokens)
    return found - found.mean(axis=0)


def colours(scores: "np.ndarray") -> "np.ndarray":
    """Components (N, T, 3) in standard deviations -> token grids (N, G, G, 3) in [0, 1]; zero is grey."""
    import numpy as np

    grid = round(scores.shape[1] ** 0.5)
    rgb = 0.5 + scores @ np.array([LIGHTNESS, YELLOW_BLUE, RED_GREEN])
    return rgb.clip(0, 1).reshape(-1, grid, grid, 3)
