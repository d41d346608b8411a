"""DETR's descendants by the name that `transformers` gives them (`model_type`)."""

from __future__ import annotations

SOFTMAX = ("detr", "table-transformer", "yolos")
"""Their last logit is "no object"."""

SIGMOID = ("conditional_detr", "dab-detr", "deformable_detr")
"""Trained with a focal loss."""

DRAWN = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "rf_detr", "lw_detr")
"""Trained with a focal loss; their queries are drawn from the input, so that an index means nothing twice."""
