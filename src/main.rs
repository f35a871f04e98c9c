//! The `ecs-mesh-operator` program.

// Returns the memory of a large sweep to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ecs_mesh_operator::cli::main()
}
