"""The user's model, and the checks of what is passed to it.

- ``checks``: checks of arguments
- ``forward``: one forward pass of the model
- ``targets``: labels in Captum's target formats
- ``score``: the kinds of scores; ``score_warnings``: what warns about them
- ``normalized``: a model with normalisation in front
- ``compiled``: models compiled by ``torch.compile``
- ``hooks``: forward hooks that act in one thread
- ``layers``: finds and names layers
- ``axes``: follows the axis of units through a pass
- ``followed_passes``: the same in passes that the user starts
- ``proportions``: where an image's proportions tell that axis
- ``input_channels``: which dimension of an input holds its channels
- ``positions``: which dimensions of a layer's output are units and positions
- ``activations``: reads the outputs of layers
- ``usage``: Captum's usage log; ``warn``: warnings at the user's line
- ``unchanged``: restores a model after third-party code ran on it
"""
