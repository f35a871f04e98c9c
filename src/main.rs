//! The `ecs-mesh-operator` program.

// It gives memory that a large sweep needed briefly back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ecs_mesh_operator::cli::main()
}
