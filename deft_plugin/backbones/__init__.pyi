from .bridge import BridgeBackbone, load_bridge
from .open_clip import OpenClipBackbone, load_open_clip

__all__ = ["BridgeBackbone", "OpenClipBackbone", "load_bridge", "load_open_clip"]
