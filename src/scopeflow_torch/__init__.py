"""``flow_backend="flowreg_torch"``: whole frames on a device. Knows scopeflow by its public names.

torch is imported when the backend is chosen, not when it is listed.
"""

from scopeflow.backends import Backend

BACKEND = Backend(
    "scopeflow_torch.displacement:make",
    executors=frozenset({"sequential"}),  # one process owns the device; frames are batched there
    package="torch",
    install="scopeflow[torch]",
)
"""What the entry point ``flowreg_torch`` of the group ``scopeflow.flow_backends`` names."""
