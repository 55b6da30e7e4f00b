"""Adversarial pairs: natural and adversarial inputs with their labels.

- ``pair``: :class:`captum_pse.AdversarialPair`
- ``labels``: the two labels, with the model's scores and predictions
- ``scored``: a pair with its labels and scores, which every result holds
- ``file_format``: ``.npz`` and ``.safetensors`` files
- ``folders``: folders of images, labelled by a CSV file or by the model
"""
