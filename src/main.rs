//! The `ecs-mesh-operator` program.

/// What a sweep of ten thousand tasks took for a moment is given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ecs_mesh_operator::cli::main()
}
