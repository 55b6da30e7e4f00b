"""Pixel groups: which of them promote and suppress.

- ``promotion_suppression``: :class:`captum_pse.PromotionSuppression`
- ``result``: what it returns
- ``incremental_ablation``: Captum's feature ablation, faster
- ``refine``: keeps a perturbation on some groups; ``refinement``: what that returns
- ``rankings``: what groups are ranked by
- ``maps``: groups as maps, and ``figure``: as figures
"""
