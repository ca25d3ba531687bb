"""Curvatures: what is accumulated of a layer's inputs and how it acts on the gradient."""

from nysact.curvature.curvature import Curvature as Curvature
from nysact.curvature.curvature import Damping as Damping
from nysact.curvature.curvature import JoinedCurvature as JoinedCurvature
from nysact.curvature.curvature import Shape as Shape
from nysact.curvature.curvature import Tensors as Tensors
from nysact.curvature.curvature import lift as lift
from nysact.curvature.eva import KroneckerVectors as KroneckerVectors
from nysact.curvature.exact import Exact as Exact
from nysact.curvature.kfac import Kronecker as Kronecker
from nysact.curvature.nystrom import SKETCHES as SKETCHES
from nysact.curvature.nystrom import Nystrom as Nystrom
from nysact.curvature.skfac import SampledKronecker as SampledKronecker
from nysact.curvature.two_sided import TwoSided as TwoSided
