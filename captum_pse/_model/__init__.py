"""The user's model and what is passed to it, checked.

- ``checks``: tensors and integers
- ``forward``: one call of the model
- ``targets``: labels in Captum's target formats
- ``normalized``: a model with its normalisation in front
- ``layers``: layers by name
- ``positions``: where a layer's output has its units and positions
- ``activations``: the outputs of layers
- ``usage``: Captum's usage log
- ``unchanged``: restores a model after third-party code ran on it
"""
