//! The `ecs-mesh-operator` program.

fn main() -> std::process::ExitCode {
    ecs_mesh_operator::cli::main()
}
