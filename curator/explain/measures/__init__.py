"""How far an attribution is to be trusted: the measures of METHODS.md as pure functions.

    fidelity       against permutation Shapley: correlation, error, the reference's reliability, E[rho]
    perturbation   deletion and insertion curves, the saliency metric, box occlusion
    localisation   localisation error, pointing game, energy inside, IoU against a mask over thresholds
    ablation       accuracy as the filters that a method calls relevant are removed
    robustness     how alike two maps are (SSIM, HOG, Spearman)
    fills          what is left of an object that a fill has removed (accuracy, MS-SSIM)
    bootstrap      intervals of means and of paired differences
    maps           one density per pixel, one value per segment, from either kind of map
    plot           fidelity against cost as SVG

Maps are `store.records.SegmentMap` or `GridMap`; everything lies in the detector's input frame, where pixel 0
covers 0 to 1.
"""
