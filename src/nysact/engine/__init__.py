"""When statistics are captured, when factors are refreshed, and how gradients are preconditioned."""

from nysact.engine.discovery import Discovery, clean_name, unwrap
from nysact.engine.engine import Engine
from nysact.engine.layer import Layer

__all__ = ["Discovery", "Engine", "Layer", "clean_name", "unwrap"]
