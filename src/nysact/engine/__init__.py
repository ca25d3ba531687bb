"""When statistics are captured and factors refreshed, and how gradients use them."""

from nysact.engine.discovery import Discovery as Discovery
from nysact.engine.discovery import clean_name as clean_name
from nysact.engine.discovery import unwrap as unwrap
from nysact.engine.engine import Engine as Engine
from nysact.engine.layer import Layer as Layer
