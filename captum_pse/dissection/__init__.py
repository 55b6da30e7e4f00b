"""Network dissection: which concepts the units of a network detect.

A concept data set is any sequence of :class:`ConceptSample` with an attribute
``concepts``, the list of its :class:`Concept` tuples. A sample is an image and, for
each category, an integer mask or the numbers of the concepts of the whole image.
"""

from captum_pse.dissection.broden import BrodenConcepts
from captum_pse.dissection.concepts import Concept, ConceptDataset, ConceptSample
from captum_pse.dissection.network_dissection import NetworkDissection
from captum_pse.dissection.result import Dissection, LayerOverlaps
from captum_pse.dissection.sets import FolderConcepts, SegmentationConcepts

__all__ = [
    "BrodenConcepts",
    "Concept",
    "ConceptDataset",
    "ConceptSample",
    "Dissection",
    "FolderConcepts",
    "LayerOverlaps",
    "NetworkDissection",
    "SegmentationConcepts",
]
