//! A Kuma 2.x control plane of our own: the REST API that the operator uses, and health discovery.
