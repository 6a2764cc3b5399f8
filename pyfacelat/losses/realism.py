"""How real the generator's own discriminator takes an image to be.

softplus(-D(x)) = -log(sigmoid(D(x))), the generator's side of the logistic loss (Goodfellow et al.
2014), as the published landmark projection has it (`d_weight`): it holds a face together where the
landmarks pull it apart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RealismLoss(nn.Module):
    """Realism term.

    Args:
        discriminator: images [n,3,R,R] in about [-1, 1] to logits [n,1]. Frozen and in evaluation
            mode from here on.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """softplus(-D(x)) of images [N,3,R,R]. Returns [N]."""
        # One at a time: the minibatch standard deviation would make an image's logit depend on the
        # others; of one image it is zero.
        logits = [self.discriminator(images[i : i + 1]).reshape(1) for i in range(len(images))]
        return F.softplus(-torch.cat(logits)) if logits else images.new_zeros(0)
