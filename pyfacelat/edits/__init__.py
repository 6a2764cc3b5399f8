"""Edits of latents: mixing rows, morphing, directions and boundaries.

Everything here is arithmetic on latents [..., num_ws, w_dim] of any generator; no network is
needed but to look at the result (`sheets.render`).
"""

from __future__ import annotations
