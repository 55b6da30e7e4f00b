"""Network dissection: which concepts the units of a network detect.

A concept data set is any sequence of :class:`ConceptSample` (an image with, for each
category, an integer mask or the numbers of the concepts in the whole image) that names
its :class:`Concept` tuples in the attribute ``concepts``.
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
