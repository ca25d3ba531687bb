"""Training frameworks: one module for each, imported on demand and never by the library itself."""

from nysact.integrations.attach import attach as attach
from nysact.integrations.attach import unwrap as unwrap
