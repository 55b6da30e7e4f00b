"""Pixel groups: promotion and suppression by groups of input features.

- ``promotion_suppression``: :class:`captum_pse.PromotionSuppression`
- ``result``: its result
- ``incremental_ablation``: a faster version of Captum's feature ablation
- ``refine``: keeps a perturbation on some groups only; ``refinement``: its result
- ``rankings``: scores that rank groups for refinement
- ``maps``: groups as maps; ``figure``: figures of groups
"""
