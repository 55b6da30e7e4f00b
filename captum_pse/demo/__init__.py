"""Built-in demo: drawn scenes, a small model trained on them, and adversarial pairs.

Nothing is downloaded, and everything is deterministic.
"""

from captum_pse.demo.concepts import SceneConcepts
from captum_pse.demo.model import DemoNet, load_model
from captum_pse.demo.pairs import make_pairs
from captum_pse.demo.scenes import Scene, Scenes, draw_scene
from captum_pse.demo.things import CLASSES, CONCEPTS

__all__ = [
    "CLASSES",
    "CONCEPTS",
    "DemoNet",
    "Scene",
    "SceneConcepts",
    "Scenes",
    "draw_scene",
    "load_model",
    "make_pairs",
]
