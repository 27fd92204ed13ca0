"""The Node Resource Interface: plugins of the node hear of pods and containers, and may adjust them."""
