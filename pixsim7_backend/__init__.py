"""The PixSim7 backend: a game backend made of plugins, and the platform that carries them."""

__version__ = "0.1.0"
