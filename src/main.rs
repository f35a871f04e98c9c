//! The `ecs-mesh-operator` program.
fn main() {}
