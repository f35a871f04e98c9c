//! What the operator tells of itself.
