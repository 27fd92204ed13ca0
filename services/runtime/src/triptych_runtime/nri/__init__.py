"""The Node Resource Interface (https://github.com/containerd/nri): plugins of the node are told of pods and
containers, and may want them different. `interface` is what RPCs use."""
