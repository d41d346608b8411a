"""What the report and the page say of failures and their maps."""

from __future__ import annotations

NO_EVIDENCE = "no evidence: the score does not react to any segment"
RULES = {
    "detection": "the detection itself",
    "matched": "the surest candidate on the object",
    "raw": "the surest candidate on the object, whose score is within the detector's noise",
    "best-iou": "no candidate fits the object, this one is nearest",
}
"""Which candidate stands for a failure, by the rule that chose it (`curator.diagnose.causes`)."""
