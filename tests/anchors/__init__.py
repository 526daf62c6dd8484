"""The tests of `sa_audit.anchors`."""
