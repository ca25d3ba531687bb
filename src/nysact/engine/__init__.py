"""When statistics are captured and factors refreshed, and how gradients use them."""

from nysact.engine.discovery import Discovery, clean_name, unwrap
from nysact.engine.engine import Engine
from nysact.engine.layer import Layer

__all__ = ["Discovery", "Engine", "Layer", "clean_name", "unwrap"]
